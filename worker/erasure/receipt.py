"""The receipt of an erasure: signed with a key of this installation, and without anything of the person.

The person is a digest with a secret that only the key's holder has. So the holder can show later that a receipt is
about somebody who asks, and nobody else can find out whom it is about.
"""

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from worker.errors import ErasureError
from worker.files import is_of_state, open_regular, private_folder, replace_file, why_unwritable
from worker.names import person_name

FORMAT: Final = "facestream.receipt.v1"
KEY: Final = "erased.key"
RECEIPTS: Final = "erased.receipts"
_SUBJECT: Final = b"facestream.subject\0"
_MOST_BYTES: Final = 16 * 2**20

Document = dict[str, Any]


class Signer:
    """Signs receipts with the key in ``folder``, which is made if there is none.

    Raises:
        ErasureError: the key cannot be read or made.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / KEY
        try:
            private_folder(folder, is_of_state)
            if not path.exists():
                made = Ed25519PrivateKey.generate()
                replace_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            key = load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise ErasureError(f"the key of receipts {path} cannot be used: {why_unwritable(error)}") from None
        except ValueError:
            raise ErasureError(f"{path} is no key of receipts: restore it, or move it away for a new one") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ErasureError(f"{path} is no Ed25519 key: restore it, or move it away for a new one")
        self._folder = folder
        self._key = key
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        self._secret = hashlib.sha256(_SUBJECT + raw).digest()

    @property
    def public_key(self) -> str:
        """The public half, base64."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def subject_of(self, name_or_id: str) -> str:
        """What stands in a receipt for a person's name or id."""
        return hmac.new(self._secret, person_name(name_or_id).encode(), hashlib.sha256).hexdigest()

    def signed(self, document: Document) -> Document:
        """``document`` with its format, the public key and the signature over all of it."""
        body = {"format": FORMAT, **document, "public_key": self.public_key}
        return {**body, "signature": base64.b64encode(self._key.sign(_canonical(body))).decode()}

    def keep(self, receipt: Document) -> Path:
        """Writes a signed receipt among the others of this installation.

        Raises:
            ErasureError: it cannot be written.
        """
        path = self._folder / RECEIPTS / f"{receipt['erasure_id']}.json"
        try:
            private_folder(path.parent)
            replace_file(path, f"{json.dumps(receipt, indent=1)}\n".encode())
        except OSError as error:
            raise ErasureError(f"the receipt {path} cannot be written: {why_unwritable(error)}") from None
        return path


def read_receipt(path: Path) -> Document:
    """The receipt in a file, whose signature was found right: it says what the holder of its ``public_key`` signed.

    Raises:
        ErasureError: it cannot be read, is no receipt, or was changed.
    """
    try:
        with open_regular(path) as file:
            receipt = json.loads(file.read(_MOST_BYTES))
        if receipt["format"] != FORMAT:
            raise ErasureError(f"{path} has format {str(receipt['format'])[:60]!r}, this version reads {FORMAT}")
        signature = base64.b64decode(receipt["signature"], validate=True)
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(receipt["public_key"], validate=True))
        body = {name: value for name, value in receipt.items() if name != "signature"}
        key.verify(signature, _canonical(body))
    except OSError as error:
        raise ErasureError(f"receipt {path} cannot be read: {error.strerror or error}") from None
    except InvalidSignature:
        raise ErasureError(f"receipt {path} was changed after it was signed, or was signed with another key") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ErasureError(f"{path} is no receipt of 'facestream forget'") from None
    return dict(receipt)


def _canonical(body: Document) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

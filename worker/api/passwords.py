"""Passwords, which are stored as argon2 hashes."""

import secrets
import threading

import argon2

from worker.api.errors import AccountError
from worker.api.roles import LONGEST_PASSWORD, SHORTEST_PASSWORD


class Passwords:
    """Hashes and compares; safe to use from any thread."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher()
        # Each hash takes 64 MiB for a moment.
        self._hashing = threading.BoundedSemaphore(2)
        self._nobody = ""

    def hash(self, password: str) -> str:
        """
        Raises:
            AccountError: it is too short, or too long.
        """
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise AccountError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
        with self._hashing:
            return self._hasher.hash(password)

    def match(self, password_hash: str, password: str) -> bool:
        """Whether it is the password of this hash. With an empty one, which nobody's password has, it takes as long."""
        if not self._nobody:
            self._nobody = self.hash(secrets.token_hex(16))
        with self._hashing:
            try:
                fits = self._hasher.verify(password_hash or self._nobody, password[: LONGEST_PASSWORD + 1])
            except argon2.exceptions.VerificationError:
                return False
        return fits and bool(password_hash)

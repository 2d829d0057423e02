"""Hosts: which may be reached on behalf of somebody else (where a redirect leads to, or a playlist, or a manifest), and
by which name this one is asked."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal
from urllib.parse import urlsplit

Range = Literal["loopback", "private", "link-local"]

MOST_REDIRECTS: Final = 5
ALLOW: Final = "name it in network.allowed_hosts if that is right"
_NEVER: Final = "is no address of one host"


class HostRefusedError(Exception):
    """The host is not to be reached; the text says why."""


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """``allowed``: names, addresses and networks (``10.1.0.0/16``) that may be reached in any case. ``refused``: ranges
    of addresses in which no other host is reached, whatever its name is."""

    allowed: tuple[str, ...] = ()
    refused: tuple[Range, ...] = ("link-local",)

    def addresses(self, host: str, port: int, *, own: str) -> list[str]:
        """The addresses of ``host`` that may be connected to, in the order of the resolver.

        ``own`` is the host that the user named; another one must be among ``allowed``.

        Raises:
            HostRefusedError: it is another host, or none of its addresses may be reached.
            OSError: its name cannot be resolved.
        """
        named = host.lower().rstrip(".") in {name.lower().rstrip(".") for name in self.allowed}
        found = list(
            dict.fromkeys(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        )
        kept = [text for text in found if named or self._is_listed(text)]
        if kept:
            return kept
        if host.lower().rstrip(".") != own.lower().rstrip("."):
            raise HostRefusedError(f"{host} is not the source's own host")
        reasons = {text: self._why_not(text) for text in found}
        kept = [text for text, reason in reasons.items() if not reason]
        if not kept:
            text, reason = next(iter(reasons.items()), (host, _NEVER))
            raise HostRefusedError(f"{host} ({text}) {reason}")
        return kept

    def permits(self, address: str, *, own: str) -> bool:
        """Whether a connection to this address may be made on behalf of ``own``, the host that the user named."""
        if self._is_listed(address):
            return True
        for host in (own, *self.allowed):
            with suppress(HostRefusedError, OSError, ValueError):
                if _plain(address) in map(_plain, self.addresses(host, 0, own=own)):
                    return True
        return False

    def _is_listed(self, text: str) -> bool:
        address = _plain(text)
        for entry in self.allowed:
            try:
                if address in ip_network(entry, strict=False):
                    return True
            except ValueError:  # a name
                continue
        return False

    def _why_not(self, text: str) -> str:
        """Why an address is not connected to; empty if it is."""
        address = _plain(text)
        if address.is_multicast or address.is_unspecified:
            return _NEVER
        # Addresses of the machine itself, and link-local ones, count as private too in ipaddress.
        kind: Range | None = (
            "loopback" if address.is_loopback
            else "link-local" if address.is_link_local
            else "private" if address.is_private
            else None
        )  # fmt: skip
        return f"lies in a range of addresses that is refused ({kind})" if kind in self.refused else ""


def _plain(text: str) -> IPv4Address | IPv6Address:
    """The address without its zone; an IPv4 address that is written as IPv6 is what it stands for."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def host_name(header: str) -> str:
    """The name in a ``Host`` header, lower case, without its port and a last dot; empty if there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Whether a host is named by its address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

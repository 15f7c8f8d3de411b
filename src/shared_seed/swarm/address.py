"""Where a peer listens, and who it has to be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared_seed import identity
from shared_seed.errors import RecipeError

PORTS = 3
"""Ports in a row that a listening peer takes."""

_ADDRESS = re.compile(
    r"tcp://(?:(?P<key>[0-9a-fA-F]{64})@)?(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+|\*):(?P<port>[0-9]{1,5})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Host (IPv6 in brackets), first of the ports in a row, and public key of the peer that listens there.

    Without a key it is a peer with the same key as whoever dials: another process of the same user.
    """

    host: str
    port: int
    key: bytes | None = None

    def endpoint(self, offset: int = 0) -> str:
        """The ``tcp://host:port`` of one of its ports."""
        return f"tcp://{self.host}:{self.port + offset}"

    def __str__(self) -> str:
        key = f"{identity.show(self.key)}@" if self.key else ""
        return f"tcp://{key}{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Read ``tcp://HOST:PORT`` or ``tcp://KEY@HOST:PORT``.

    Raises:
        RecipeError: it is not such an address.
    """
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65536 - PORTS:
        raise RecipeError(
            f"{text!r} is not an address; expected tcp://HOST:PORT or tcp://KEY@HOST:PORT, where KEY has 64 hex "
            f"digits and PORT is at most {65536 - PORTS}, such as tcp://127.0.0.1:5555"
        )
    return Address(match["host"], int(match["port"]), identity.parse(match["key"]) if match["key"] else None)

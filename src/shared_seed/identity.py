"""Who a peer is: one Ed25519 key (RFC 8032), which signs its messages and, as Curve25519, encrypts its links.

The key lies in the user's configuration folder, readable by its owner alone; all runs of one user on one machine
share it. The environment variable ``SHARED_SEED_KEY`` names another file.
"""

from __future__ import annotations

import os
import re
import secrets
from functools import lru_cache
from pathlib import Path
from typing import final

import platformdirs
from nacl import bindings, exceptions

from shared_seed.errors import KeyFileError, RecipeError

VARIABLE = "SHARED_SEED_KEY"
"""Environment variable that names the file of the key."""

SIGNATURE_SIZE = 64
KEY_SIZE = 32
"""Bytes of a signature and of a public key."""

_TEXT = re.compile(r"^[0-9a-f]{64}$")


@final
class Key:
    """A secret key; made from 32 secret bytes."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.public, self._secret = bindings.crypto_sign_seed_keypair(seed)

    @classmethod
    def fresh(cls) -> Key:
        """A key that nobody has."""
        return cls(secrets.token_bytes(32))

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes that prove that the owner of this key has signed ``data``."""
        signed: bytes = bindings.crypto_sign(data, self._secret)
        return signed[:SIGNATURE_SIZE]

    @property
    def curve_secret(self) -> bytes:
        """The same key for encryption: 32 bytes of Curve25519."""
        secret: bytes = bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)
        return secret

    def __repr__(self) -> str:
        return f"Key of {show(self.public)}"


def verify(public: bytes, data: bytes, signature: bytes) -> bool:
    """Whether the owner of a public key has signed ``data``; ``False`` too for bytes that are no key at all."""
    if len(signature) != SIGNATURE_SIZE or len(public) != KEY_SIZE:
        return False
    try:
        bindings.crypto_sign_open(signature + data, public)
    except exceptions.CryptoError:
        return False
    return True


@lru_cache(4096)
def curve_public(public: bytes) -> bytes | None:
    """The Curve25519 public key, 32 bytes, that belongs to an Ed25519 one; ``None`` for bytes that are no key."""
    try:
        converted: bytes = bindings.crypto_sign_ed25519_pk_to_curve25519(public)
    except (exceptions.CryptoError, RuntimeError, ValueError, TypeError):
        return None
    return converted


def show(public: bytes) -> str:
    """A public key as people copy it: 64 hex digits."""
    return public.hex()


def parse(text: str) -> bytes:
    """The public key that :func:`show` wrote.

    Raises:
        RecipeError: it is not 64 hex digits that are a key.
    """
    cleaned = text.strip().lower()
    if not _TEXT.match(cleaned) or curve_public(bytes.fromhex(cleaned)) is None:
        raise RecipeError(
            f"{text!r} is not a peer's key; expected the 64 hex digits that `shared-seed key` prints there"
        )
    return bytes.fromhex(cleaned)


def key_path() -> Path:
    """Where the user's key lies."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(platformdirs.user_config_dir("shared-seed", appauthor=False)) / "key"


def load(path: Path | None = None) -> Key:
    """The user's key; made, with mode 600, where there is none yet.

    Raises:
        KeyFileError: the file is not a key, may be read by others, or cannot be read or written.
    """
    where = path or key_path()
    try:
        return _read(where) if where.exists() else _create(where)
    except OSError as error:
        raise KeyFileError(
            f"cannot use the key file {where}: {error.strerror}; expected a file of yours with mode 600; name "
            f"another place with the environment variable {VARIABLE}"
        ) from error


def _read(path: Path) -> Key:
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise KeyFileError(
            f"the key file {path} may be read by others (mode {path.stat().st_mode & 0o777:o}), who could "
            f"publish in your name; if nobody has, run `chmod 600 {path}`, otherwise delete it to get a new key"
        )
    text = path.read_text(errors="replace").strip()
    if not _TEXT.match(text):
        raise KeyFileError(
            f"the key file {path} is damaged: expected 64 hex digits; restore it from a copy, or delete it to get "
            "a new key (runs that admit the old one will not know you)"
        )
    return Key(bytes.fromhex(text))


def _create(path: Path) -> Key:
    """Write a fresh key; where another process does so at the same time, its key is taken."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Key.fresh()
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.seed.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # Unlike a rename, it never takes the place of what is there.
        except FileExistsError:
            return _read(path)
    finally:
        temporary.unlink(missing_ok=True)
    return key

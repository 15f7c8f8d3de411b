"""Who a peer is to the others, and the run that it is in."""

from __future__ import annotations

from dataclasses import dataclass

from shared_seed.admission import Introduction
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes a stream: its key and introduction, neither in a private run, and what people call it."""

    stream: Stream
    name: str
    key: Key | None = None
    introduction: Introduction | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The manifest as it goes over links: its digest, its packed bytes, its owner's signature."""

    digest: bytes
    packed: bytes
    signature: bytes

    @classmethod
    def of(cls, manifest: Manifest, signature: bytes) -> Terms:
        """Of a manifest."""
        return cls(manifest.digest(), manifest.pack(), signature)

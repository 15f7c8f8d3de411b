"""Which messages of a run to replay: up to a round, and without some peers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared_seed import identity
from shared_seed.archive import Archive
from shared_seed.errors import RecipeError
from shared_seed.messages import Message, Stream

MOST_SHOWN = 20
"""Streams that an error lists."""

_KEY = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([0-9a-f]{1,24})(?:/(\d{1,10}))?")


@dataclass(frozen=True)
class Selection:
    """Messages of rounds below ``until``, of no stream that a name in ``without`` stands for; by default all.

    A name is a stream's, as ``shared-seed inspect`` prints it (``3fa94c10/0``), a peer's first hex digits, which
    stand for all of its streams, or a public key, 64 hex digits, which stands for all of its peers'.
    """

    until: int | None = None
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.until is not None and self.until < 0:
            raise RecipeError(f"until is {self.until}; expected a number of rounds, 0 or more")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.until is None and not self.without

    def of(self, archive: Archive) -> list[Message]:
        """Of the messages that count, those that are selected.

        Who is left out is left out as if he had never published: what the rest comes to is computed from the rest
        alone, under every rule of aggregation.

        Raises:
            RecipeError: a name stands for nobody, or for several peers; lists those that there are.
        """
        out = {stream for name in self.without for stream in named(archive, name)}
        until = archive.rules.rounds if self.until is None else self.until
        return [m for m in archive.effective() if m.round < until and m.stream not in out]


WHOLE = Selection()
"""All messages that count."""


def named(archive: Archive, name: str) -> list[Stream]:
    """The streams of a run that a name of :class:`Selection` stands for.

    Raises:
        RecipeError: it stands for nobody, or for several peers; lists those that there are.
    """
    text = name.strip().lower()
    if _KEY.fullmatch(text):
        key = bytes.fromhex(text)
        found = [s for s in archive.streams if (known := archive.introduction(s)) is not None and known.key == key]
        several = False
    elif parts := _NAME.fullmatch(text):
        begins, incarnation = parts[1], parts[2]
        found = [s for s in archive.streams if s.peer.hex().startswith(begins)]
        found = [s for s in found if incarnation is None or s.incarnation == int(incarnation)]
        several = len({s.peer for s in found}) > 1
    else:
        raise RecipeError(
            f"{name!r} names no peer; expected a stream as `shared-seed inspect` prints it, such as 3fa94c10/0, a "
            f"peer's first hex digits, or a public key of 64 hex digits; {_all(archive, archive.streams)}"
        )
    if several:
        raise RecipeError(f"{name!r} stands for several peers; give more of its digits; {_all(archive, found)}")
    if not found:
        raise RecipeError(f"{name!r} stands for nobody in this run; {_all(archive, archive.streams)}")
    return found


def _all(archive: Archive, streams: Sequence[Stream]) -> str:
    """The streams, each with its key."""
    if not streams:
        return "it has no streams"
    shown = []
    for stream in sorted(streams)[:MOST_SHOWN]:
        known = archive.introduction(stream)
        shown.append(f"{full_name(stream)}{f' of key {identity.show(known.key)}' if known else ''}")
    more = f" and {len(streams) - MOST_SHOWN} more" if len(streams) > MOST_SHOWN else ""
    return f"there {'is' if len(streams) == 1 else 'are'} {', '.join(shown)}{more}"


def full_name(stream: Stream) -> str:
    """A stream's name with all of its peer's digits."""
    return f"{stream.peer.hex()}/{stream.incarnation}"

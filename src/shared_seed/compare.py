"""What tells two gradient logs apart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from shared_seed import history
from shared_seed.archive import Archive
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream
from shared_seed.selection import full_name

LONGEST_VALUE = 80
"""Characters that are shown of a field of a manifest."""

Pair = tuple[str | None, str | None]
"""What the first log says, and the second; ``None`` where one says nothing."""


@dataclass(frozen=True)
class StreamDifference:
    """How many messages of a stream are in both logs, in the first alone and in the second alone.

    ``parts_at`` is the first number under which both say something, and not the same: its writer has told two
    stories, or has run twice.
    """

    stream: Stream
    both: int
    only_first: int
    only_second: int
    parts_at: int | None

    @property
    def is_equal(self) -> bool:
        """Whether both logs hold the same of it."""
        return not self.only_first and not self.only_second


@dataclass(frozen=True)
class Difference:
    """``terms`` by field of the manifest, ``orders`` by key, ``forks`` by stream and ``guests`` by key have what
    differs alone; ``streams`` has all streams; ``digests`` are those that the logs state.
    """

    same_run: bool
    terms: dict[str, Pair]
    streams: tuple[StreamDifference, ...]
    orders: dict[str, Pair]
    forks: dict[str, Pair]
    guests: dict[str, Pair]
    digests: Pair

    @property
    def is_equal(self) -> bool:
        """Whether both logs lead from the same base model to the same weights for the same reasons.

        A log without a stated digest agrees with any.
        """
        first, second = self.digests
        statements = self.terms or self.orders or self.forks or self.guests
        conflict = first is not None and second is not None and first != second
        return not statements and not conflict and all(each.is_equal for each in self.streams)


def compare(first: Contents, second: Contents) -> Difference:
    """Hold two logs against each other.

    Raises:
        LogError: one of them does not hold a run that is whole.
    """
    one, other = history.archive_of(first), history.archive_of(second)
    return Difference(
        same_run=first.manifest.seal == second.manifest.seal,
        terms=_terms(first.manifest, second.manifest),
        streams=_streams(one, other),
        orders=_differing(_orders(one), _orders(other)),
        forks=_differing(_forks(one), _forks(other)),
        guests=_differing(_guests(one), _guests(other)),
        digests=(_digest(first), _digest(second)),
    )


def _terms(first: Manifest, second: Manifest) -> dict[str, Pair]:
    here, there = first.model_dump(mode="json"), second.model_dump(mode="json")
    shown = [{name: json.dumps(value, sort_keys=True) for name, value in terms.items()} for terms in (here, there)]
    return {name: (_short(a), _short(b)) for name, (a, b) in _differing(*shown).items()}


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _differing(first: dict[str, str], second: dict[str, str]) -> dict[str, Pair]:
    names = sorted({*first, *second})
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _orders(archive: Archive) -> dict[str, str]:
    orders = archive.orders.values()
    return {o.key.hex(): f"{'banned' if o.banned else 'not banned'} by order {o.serial}" for o in orders}


def _forks(archive: Archive) -> dict[str, str]:
    return {full_name(stream): f"ends at {fork.number}, where it forks" for stream, fork in archive.forks.items()}


def _guests(archive: Archive) -> dict[str, str]:
    """Who has written or shown an invite, by key."""
    introductions = [archive.introduction(stream) for stream in (*archive.streams, *archive.forks)]
    keys = {each.key for each in (*introductions, *archive.guests()) if each is not None}
    return {key.hex(): "left out" if archive.is_out(key) else "takes part" for key in keys}


def _streams(one: Archive, other: Archive) -> tuple[StreamDifference, ...]:
    here, there = _encoded(one), _encoded(other)
    return tuple(
        _difference(stream, here.get(stream, []), there.get(stream, [])) for stream in sorted({*here, *there})
    )


def _encoded(archive: Archive) -> dict[Stream, list[bytes]]:
    found: dict[Stream, list[bytes]] = {}
    for message in archive:
        found.setdefault(message.stream, []).append(message.encode())
    return found


def _difference(stream: Stream, first: list[bytes], second: list[bytes]) -> StreamDifference:
    pairs = enumerate(zip(first, second, strict=False))
    parts_at = next((number for number, (a, b) in pairs if a != b), None)
    both = min(len(first), len(second)) if parts_at is None else parts_at
    return StreamDifference(stream, both, len(first) - both, len(second) - both, parts_at)


def _digest(contents: Contents) -> str | None:
    return contents.digest[1].hex() if contents.finished and contents.digest else None


def as_dict(found: Difference) -> dict[str, Any]:
    """A difference as JSON has it; pairs are lists of two."""
    streams = [
        {
            "peer": each.stream.peer.hex(),
            "incarnation": each.stream.incarnation,
            "both": each.both,
            "only_first": each.only_first,
            "only_second": each.only_second,
            "parts_at": each.parts_at,
        }
        for each in found.streams
    ]
    return {
        "equal": found.is_equal,
        "same_run": found.same_run,
        "terms": found.terms,
        "streams": streams,
        "orders": found.orders,
        "forks": found.forks,
        "guests": found.guests,
        "digests": found.digests,
    }

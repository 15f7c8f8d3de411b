"""Between a log, or a checkpoint, and the archive that it is of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError, LogError, MessageError, RefusedError
from shared_seed.ledger import BLOCK, Stretch
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream
from shared_seed.proofs import Fork, Order
from shared_seed.signed import Records, Signed, Statement, parts

_STREAM, _NUMBER = slice(1, 17), slice(17, 21)
"""Where an encoded message has its stream and its number."""


def restore(archive: Archive, contents: Contents, quietly: bool = False) -> None:
    """Put all that a log holds into the archive of its run.

    Args:
        archive: still empty, or with parts of the same.
        contents: of the log.
        quietly: leave nothing new in the archive, which saves the memory for it.

    Raises:
        LogError: the log lacks messages or signatures, or holds what its run does not allow.
    """
    try:
        introductions = [each for each in contents.statements if isinstance(each, Introduction)]
        for guest in introductions:
            _introduce(archive, guest)
        guests = {guest.peer(archive.run): guest for guest in introductions}
        for statement in contents.statements:
            if isinstance(statement, Order):
                archive.accept_order(statement)
            elif isinstance(statement, Fork) and _has_place(archive, Stream.from_bytes(statement.stream), guests):
                archive.accept_fork(statement)
        by_stream: dict[bytes, list[bytes]] = {}
        for payload in Records.of(contents.signed).payloads:
            by_stream.setdefault(payload[_STREAM], []).append(payload)
        for name, said in by_stream.items():
            stream = Stream.from_bytes(name)
            if _has_place(archive, stream, guests):
                _restore_stream(archive, stream, _last_said(said))
            if quietly:
                archive.take()
    except (MessageError, RefusedError) as error:
        raise LogError(f"the gradient log does not hold a run that is whole: {error}; fetch it again") from error


def standing(archive: Archive, statements: Iterable[Statement]) -> list[Statement]:
    """Those statements that still hold: nothing that came later has overruled them or taken their place."""
    kept: set[Statement] = {*archive.orders.values(), *archive.forks.values(), *archive.guests()}

    def is_known(said: Statement) -> bool:
        return isinstance(said, Introduction) and archive.introduction(Stream(said.peer(archive.run))) == said

    return [said for said in statements if said in kept or is_known(said)]


def _introduce(archive: Archive, guest: Introduction) -> None:
    with contextlib.suppress(MessageError):  # It may be one peer too many of its key.
        archive.introduce(guest)


def _has_place(archive: Archive, stream: Stream, guests: dict[bytes, Introduction]) -> bool:
    """Whether a stream is not one too many of its key; its peer may have had to make room for others."""
    if archive.introduction(stream) is None and stream.peer in guests:
        _introduce(archive, guests[stream.peer])
        return archive.introduction(stream) is not None and archive.has_room(stream)
    return archive.has_room(stream)


def _restore_stream(archive: Archive, stream: Stream, said: list[bytes]) -> None:
    stretches = _stretches(said)
    for index, stretch in enumerate(stretches, 1):
        try:
            archive.accept_stretch(stream, stretch)
        except EquivocationError:
            return  # The archive had another branch, and has the proof now.
        except MessageError:
            unsigned = bool(archive.owner) and not stretch.signature and index == len(stretches)
            if not unsigned and stream not in archive.forks:
                raise
            # A crash, or the cut at a fork, has taken the signature of these; the run's peers have it.


def _last_said(said: list[bytes]) -> list[bytes]:
    """The stream, without what was taken out and then, from its number on, heard again."""
    chain: list[bytes] = []
    for payload in said:
        number = int.from_bytes(payload[_NUMBER], "little")
        if number > len(chain):
            # What follows a gap would be taken once more when the gap is filled.
            raise LogError(
                "the gradient log lacks messages before some that it holds; expected every stream without a gap; "
                "begin in another run folder, and fetch the run from its peers"
            )
        del chain[number:]
        chain.append(payload)
    return chain


def _stretches(said: list[bytes]) -> list[Stretch]:
    """A stream in pieces that end with the last signature of each block, or behind it with the block or stream."""
    stretches: list[Stretch] = []
    for start in range(0, len(said), BLOCK):
        block = [parts(payload) for payload in said[start : start + BLOCK]]
        signed = max((count for count, (_, signature) in enumerate(block, 1) if signature), default=0)
        for first, end in ((0, signed), (signed, len(block))):
            encoded = tuple(message for message, _ in block[first:end])
            if encoded:
                stretches.append(Stretch(start + first, encoded, block[end - 1][1]))
    return stretches


def contents_of(archive: Archive, manifest: Manifest, signature: bytes) -> Contents:
    """The one log of an archive: archives that are equal give equal ones.

    Messages come by round and stream; those alone carry a signature that end a block or their stream.
    """
    said = [Signed(message, _signature(archive, message)) for message in sorted(archive, key=_place)]
    writers = {stream.peer: archive.introduction(stream) for stream in (*archive.streams, *archive.forks)}
    introductions = [known for peer in sorted(writers) if (known := writers[peer]) is not None]
    shown = {(each.key, each.ticket) for each in introductions}
    guests = [guest for guest in archive.guests() if (guest.key, guest.ticket) not in shown]
    introductions += sorted(guests, key=lambda guest: guest.encode())
    orders = [archive.orders[key] for key in sorted(archive.orders)]
    forks = [archive.forks[stream] for stream in sorted(archive.forks)]
    return Contents(manifest, said, signature=signature, statements=[*introductions, *orders, *forks])


def _signature(archive: Archive, message: Message) -> bytes:
    """What a log keeps of a message's signature: at the ends of blocks, and at the stream's end unless a fork
    proves as much.
    """
    stream, count = message.stream, message.number + 1
    if count % BLOCK:
        fork = archive.forks.get(stream)
        proven = fork is not None and (count, archive.head(stream, count)) == (fork.number, fork.head)
        if proven or count < archive.count(stream):
            return b""
    return archive.signature(stream, count)


def _place(message: Message) -> tuple[int, Stream, int]:
    return message.round, message.stream, message.number


def archive_of(contents: Contents) -> Archive:
    """The archive that a log is of, with nothing new in it.

    Raises:
        LogError: as :func:`restore`.
    """
    archive = Archive(contents.manifest)
    restore(archive, contents, quietly=True)
    archive.take()
    return archive

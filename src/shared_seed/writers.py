"""Who writes which streams: the keys, introductions and tickets of a run, and how many streams a key may have.

What is kept does not depend on the order in which it came, but for introductions of peers that have written
nothing, which mean nothing either.
"""

from __future__ import annotations

from dataclasses import replace

from shared_seed import identity
from shared_seed.admission import LABEL_SIZE, Admissions, Introduction
from shared_seed.errors import MessageError
from shared_seed.identity import KEY_SIZE
from shared_seed.messages import MOST_STREAMS, Stream


class Writers:
    """The writers of one run.

    Args:
        run: the run's 16 bytes, of which the names of streams are made.
        admissions: who may take part.
        most: streams that one key may have; of more, those with the smallest names stay.
    """

    def __init__(self, run: bytes, admissions: Admissions, most: int) -> None:
        self.introductions: dict[bytes, Introduction] = {}
        self.admissions = admissions
        self._run, self._most = run, most
        self._peers: dict[bytes, list[bytes]] = {}
        self._tickets: dict[bytes, dict[bytes, bytes]] = {}  # a key's, by the invite's public key
        self._streams: dict[bytes, list[Stream]] = {}
        self._total = 0

    def introduce(self, introduction: Introduction) -> tuple[Introduction | None, bytes | None]:
        """Learn who a peer is.

        Returns:
            what was new of it, if anything was; and a key that is excluded from now on, if one is.

        Raises:
            RefusedError: the run does not admit this key.
            MessageError: there are too many peers, of this key or in all.
        """
        introduction = self.admissions.essential(introduction)
        key, ticket, peer = introduction.key, introduction.ticket, introduction.peer(self._run)
        shown = self._tickets.get(key, {}).get(ticket[:KEY_SIZE])
        shows = bool(ticket) and (shown is None or ticket < shown)
        if peer in self.introductions and not shows:
            return None, None
        if peer in self.introductions or self._make_room(key, peer):
            self.introductions[peer] = introduction
        elif not shows:
            raise MessageError(f"more than {self._most} peers of key {identity.show(key)}")
        if ticket:
            tickets = self._tickets.setdefault(key, {})
            tickets[ticket[:KEY_SIZE]] = ticket if shows else tickets[ticket[:KEY_SIZE]]
            for each in self._peers.get(key, ()):
                self.introductions[each] = replace(self.introductions[each], ticket=min(tickets.values()))
        return introduction, self.admissions.note(introduction)

    def key_of(self, stream: Stream) -> bytes:
        """The key that writes a stream.

        Raises:
            MessageError: nobody has introduced its peer.
        """
        introduction = self.introductions.get(stream.peer)
        if introduction is None:
            raise MessageError(f"stream {stream} is of a peer that nobody has introduced")
        return introduction.key

    def streams_of(self, key: bytes) -> list[Stream]:
        """The streams of a key that were let in."""
        return list(self._streams.get(key, ()))

    def has_room(self, stream: Stream) -> bool:
        """Whether a stream is in, or could be, as far as its key's other streams go."""
        introduction = self.introductions.get(stream.peer)
        if introduction is None:
            return True
        streams = self._streams.get(introduction.key, [])
        return stream in streams or len(streams) < self._most or stream < max(streams)

    def let_in(self, stream: Stream) -> Stream | None:
        """Note that there is a stream; the one that must go for it, if there were too many.

        Raises:
            MessageError: its key, or the run, has too many.
        """
        introduction = self.introductions.get(stream.peer)
        streams = self._streams.setdefault(introduction.key, []) if introduction else []
        if stream in streams:
            return None
        if introduction is not None and not self.has_room(stream):
            raise MessageError(f"more than {self._most} streams of {identity.show(introduction.key)}")
        if introduction is None or len(streams) < self._most:
            if self._total >= MOST_STREAMS:
                raise MessageError(f"more than {MOST_STREAMS} streams in one run")
            self._total += 1
            streams.append(stream)
            return None
        surplus = max(streams)
        streams[streams.index(surplus)] = stream
        return surplus

    def guests(self) -> list[Introduction]:
        """What is known of invites, as introductions without a label: who else shows one decides who counts."""
        return [
            Introduction(key, bytes(LABEL_SIZE), ticket)
            for key, tickets in self._tickets.items()
            for ticket in tickets.values()
        ]

    def _make_room(self, key: bytes, peer: bytes) -> bool:
        """Note a peer, and forget another that has written nothing if its key has too many; ``False`` if there is
        no such peer, and no stream of this one could be let in.

        Raises:
            MessageError: there are too many peers in all.
        """
        peers, streams = self._peers.setdefault(key, []), self._streams.get(key, [])
        if len(peers) >= self._most:
            writing = {stream.peer for stream in streams}
            idle = next((each for each in peers if each not in writing), None)
            if idle is not None:
                peers.remove(idle)
                del self.introductions[idle]
            elif Stream(peer) > max(streams):
                return False
        if len(self.introductions) >= MOST_STREAMS:
            raise MessageError(f"more than {MOST_STREAMS} peers in one run")
        peers.append(peer)
        return True

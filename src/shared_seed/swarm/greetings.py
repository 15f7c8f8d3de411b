"""How a link begins: who dials says hello, the other side welcomes or refuses him, and a relay may want a run."""

from __future__ import annotations

from shared_seed.errors import MessageError, RefusedError
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.output import Link, Output, Send, Timing
from shared_seed.swarm.standing import Standing
from shared_seed.swarm.wire import State

REFRESH = 4
"""A greeting that was answered is repeated after this many times ``Timing.greet`` in which nothing came over the
link: whoever sends us something there knows us.
"""


class Greetings:
    """The links that we have dialled, and what both ends say first."""

    def __init__(self, terms: Terms, standing: Standing, timing: Timing) -> None:
        self._terms = terms
        self._standing = standing
        self._timing = timing
        self._due: dict[Link, float] = {}

    def __contains__(self, link: Link) -> bool:
        return link in self._due

    def __len__(self) -> int:
        return len(self._due)

    def dial(self, link: Link) -> None:
        """Say hello on this link at the next look at the clock, and again while nobody answers."""
        self._due[link] = 0.0

    def repeat(self) -> None:
        """Say hello on all links: one of the other ends may have restarted."""
        self._due = dict.fromkeys(self._due, 0.0)

    def heard(self, link: Link, now: float) -> None:
        """The other end has sent us something, so it knows us, unless it is to be greeted anew."""
        if self._due.get(link, 0.0) > now:
            self._due[link] = now + REFRESH * self._timing.greet

    def hellos(self, author: Author, now: float) -> list[Output]:
        """Those that are due."""
        out: list[Output] = []
        for link, due in self._due.items():
            if now >= due:
                self._due[link] = now + self._timing.greet
                assert author.introduction is not None
                guest = wire.Guest.of(author.introduction)
                hello = wire.Hello(author.stream.to_bytes(), author.name, guest, self._terms.digest)
                out.append(Send(link, wire.encode(hello)))
        return out

    def answer(self, hello: wire.Hello, author: Author, sender: bytes) -> tuple[bytes, Stream | None]:
        """What to answer, and the stream of our new neighbour, if it is one.

        Raises:
            MessageError: the greeting is not its sender's, or we have no name ourselves.
        """
        own = author.introduction
        if own is None:
            raise MessageError("a greeting in a private run")
        introduction, stream = hello.guest.introduction(), Stream.from_bytes(hello.stream)
        try:
            self._standing.check_hello(hello, self._terms, sender)
        except RefusedError as error:
            return wire.encode(wire.Refusal(str(error)[:1000])), None
        asks = not hello.manifest_digest
        if not asks:
            self._standing.check_peer(introduction, stream)
            self._standing.introduce(introduction, State.LOADING)
        packed, signature = (self._terms.packed, self._terms.signature) if asks else (b"", b"")
        welcome = wire.Welcome(author.stream.to_bytes(), author.name, wire.Guest.of(own), packed, signature)
        return wire.encode(welcome), None if asks else stream

    def enter(self, link: Link, welcome: wire.Welcome, now: float) -> Stream:
        """We are welcome; gives our new neighbour's stream.

        Raises:
            MessageError: we have not dialled this link, or it is another's stream.
        """
        self._check_dialled(link, "welcome")
        stream = Stream.from_bytes(welcome.stream)
        self._standing.check_peer(welcome.guest.introduction(), stream)
        self._due[link] = now + REFRESH * self._timing.greet
        return stream

    def obey(self, link: Link, refusal: wire.Refusal) -> None:
        """We are not welcome.

        Raises:
            MessageError: we have not dialled this link.
        """
        self._check_dialled(link, "refusal")
        self._standing.refusal = refusal.reason

    def offer(self, link: Link) -> bytes:
        """What to answer to a relay without a run.

        Raises:
            MessageError: we have not dialled this link.
        """
        self._check_dialled(link, "vacancy")
        self._due[link] = 0.0  # It will greet us once it has the run.
        return wire.encode(wire.Offer(self._terms.packed, self._terms.signature))

    def _check_dialled(self, link: Link, what: str) -> None:
        if link not in self._due:
            raise MessageError(f"a {what} on a link that we did not dial")

"""The protocol on real sockets. One thread owns them all, so that a slow forward pass never stalls the network."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import zmq

from shared_seed import clock
from shared_seed.errors import MessageError, RefusedError, SwarmError, UnreachableError
from shared_seed.identity import Key
from shared_seed.messages import Message
from shared_seed.signed import SIGNED_KIND
from shared_seed.swarm.address import parse
from shared_seed.swarm.budget import Budget
from shared_seed.swarm.output import Join, Link, Output, Send
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.traffic import Traffic
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import told
from shared_seed.swarm.zmq.inbox import MOST_AT_ONCE, Frames, Inbox, sender_of
from shared_seed.swarm.zmq.line import Line, News
from shared_seed.swarm.zmq.neighbours import Listener, Neighbour
from shared_seed.swarm.zmq.sockets import Context, Socket, resolve

POLL = 50
"""Milliseconds that the thread sleeps at most."""

BYTES_PER_SECOND = 1_000_000
"""What one key may send us."""

ANSWERS = 16
"""A peer that we dialled may answer our requests at this multiple of the rate: we have asked for it. So may we
answer others' requests, however small they are.
"""

INTRODUCTION = 0.25
"""Seconds between two heartbeats that new subscribers cause."""

SHUT_OUT = 5
"""Refusals in a row by a hall whose door has welcomed us, until we take them as meant: a peer that has restarted
knows us only once we have greeted it again.
"""

Answer = TypeVar("Answer")


class Swarm:
    """The protocol on real sockets.

    Methods may be called from one thread at a time; the protocol is only touched under the lock.
    """

    def __init__(
        self,
        protocol: Protocol,
        key: Key,
        listen: str | None = None,
        dial: Sequence[str] = (),
        bytes_per_second: int = BYTES_PER_SECOND,
    ) -> None:
        """Open the sockets and start the thread.

        Args:
            protocol: this peer's.
            key: this peer's; both ends of every link prove theirs.
            listen: ``tcp://HOST:PORT`` to accept peers at; PORT + 1 and PORT + 2 are used too. Port 0 takes
                any three in a row.
            dial: addresses of listening peers to connect to, ``tcp://HOST:PORT`` for those with our own key,
                ``tcp://KEY@HOST:PORT`` for others.
            bytes_per_second: that each key may send us; what goes beyond is dropped.

        Raises:
            RecipeError: what should be an address is none.
            AddressInUseError: one of the three ports is taken; nothing is left open.
            UnreachableError: an address names no host; nothing is left open.
            SwarmError: the ports would let in strangers; nothing is left open.
        """
        self.traffic = Traffic()
        self.address: str | None = None
        self._protocol = protocol
        self._key = key
        self._condition = threading.Condition()
        self._outbox: deque[Output] = deque()
        self._failure: BaseException | None = None
        self._unreachable: str | None = None
        self._closing = False
        self._published = Budget(bytes_per_second)
        self._answered = Budget(ANSWERS * bytes_per_second)
        self._asked = Budget(ANSWERS * bytes_per_second)
        self._inbox = Inbox(self.traffic)
        self._subscribers: dict[Socket, int] = {}
        self._unmet = False
        self._introduced = -INTRODUCTION
        self._context: Context = zmq.Context()
        self._listener: Listener | None = None
        self._neighbours: dict[Link, Neighbour] = {}
        try:
            self._open(listen, dial)
        except BaseException:
            self._close_sockets()
            self._context.destroy(linger=0)
            raise
        self._thread = threading.Thread(target=self._run, name="shared-seed-swarm", daemon=True)
        self._thread.start()

    # For the session's thread

    def enter(self, state: State, round_: int, digest: bytes = b"") -> None:
        """State what this peer is at."""
        self._do(lambda: self._protocol.enter(state, round_, clock.now(), digest))

    def publish(self, message: Message) -> None:
        """Send our next message."""
        self._do(lambda: self._protocol.publish(message, clock.now()))

    def ask(self, question: Callable[[Protocol, float], Answer]) -> Answer:
        """The answer of ``question(protocol, now)``, under the lock."""
        with self._condition:
            self._raise_failure()
            return question(self._protocol, clock.now())

    def wait(self, done: Callable[[Protocol, float], bool], timeout: float) -> bool:
        """Sleep until ``done(protocol, now)``, looked at whenever something arrives; ``False`` at the timeout."""
        deadline = clock.now() + timeout
        with self._condition:
            while True:
                self._raise_failure()
                if done(self._protocol, clock.now()):
                    return True
                left = deadline - clock.now()
                if left <= 0:
                    return False
                self._condition.wait(min(left, 0.25))

    def close(self) -> None:
        """Say that we leave, send what is queued, and close the sockets; may be called again."""
        if self._closing:
            return
        with self._condition:
            if self._failure is None:
                round_, digest = self._protocol.round, self._protocol.digest
                self._outbox.extend(self._protocol.enter(State.LEAVING, round_, clock.now(), digest))
            self._closing = True
        self._ring()
        self._thread.join()
        self._bell.close()
        self._context.term()

    def _do(self, action: Callable[[], Iterable[Output]]) -> None:
        with self._condition:
            self._raise_failure()
            self._outbox.extend(action())
        self._ring()

    def _ring(self) -> None:
        """Wake the thread, unless it is awake enough, or gone."""
        with contextlib.suppress(zmq.Again):
            self._bell.send(b"", zmq.NOBLOCK)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise SwarmError(f"the network thread has stopped: {self._failure}") from self._failure
        if self._protocol.standing.refusal is not None:
            raise RefusedError(f"the swarm refused this peer: {self._protocol.standing.refusal}")
        if self._unreachable is not None:
            raise UnreachableError(self._unreachable)

    # Opening and closing

    def _open(self, listen: str | None, dial: Sequence[str]) -> None:
        self._bell = self._context.socket(zmq.PAIR)
        self._bell.bind("inproc://bell")
        self._ear = self._context.socket(zmq.PAIR)
        self._ear.connect("inproc://bell")
        self._inbox.take(self._ear, lambda frames: None)
        addresses = {("dialled", address): parse(address) for address in dial}
        for where in addresses.values():
            resolve(where)
        if listen is not None:
            self._listener = listener = Listener(self._context, self._key, self._protocol, listen)
            self.address = listener.address
            self._inbox.watch(listener.gate.socket, self._guard)
            self._inbox.take(listener.router, self._from_accepted)
            self._inbox.take(listener.ingress, self._from_ingress, urgent=True)
            self._watch_publications(listener.publications)
        for link, where in addresses.items():
            neighbour = self._neighbours[link] = Neighbour(self._context, self._key, where, link)
            door = neighbour.door
            self._inbox.take(door.socket, functools.partial(self._from_dialled, neighbour))
            self._inbox.watch(door.monitor, functools.partial(self._heed, neighbour, door))
            self._protocol.dialled(link, neighbour.key)

    def _join(self, neighbour: Neighbour) -> None:
        """Subscribe to a peer that has welcomed us, and publish to it."""
        subscription, publications = neighbour.join()
        self._inbox.take(subscription.socket, functools.partial(self._heard, neighbour.curve), urgent=True)
        self._watch_publications(publications.socket)
        for line in (subscription, publications):
            self._inbox.watch(line.monitor, functools.partial(self._heed, neighbour, line))

    def _watch_publications(self, socket: Socket) -> None:
        self._subscribers[socket] = 0
        self._inbox.take(socket, functools.partial(self._subscribed, socket))

    def _close_sockets(self) -> None:
        for neighbour in self._neighbours.values():
            for line in neighbour.lines:
                line.close()
        if self._listener is not None:
            self._listener.close()
        self._ear.close()

    # The thread

    def _run(self) -> None:
        try:
            pause = POLL
            while not self._closing or self._outbox:
                reads = self._inbox.wait(pause)
                with self._condition:
                    for read in reads:
                        read()
                    self._tick(clock.now())
                    while self._outbox:
                        self._send(self._outbox.popleft())
                    pause = 0 if self._protocol.has_answers(clock.now()) else POLL
                    self._condition.notify_all()
        except BaseException as error:  # the session's thread is told, and raises
            self._failure = error
            with self._condition:
                self._condition.notify_all()
        finally:
            self._close_sockets()

    def _tick(self, now: float) -> None:
        for neighbour in self._neighbours.values():
            for line in neighbour.lines:
                if line.tend(now) and line is neighbour.door:
                    self._protocol.dialled(neighbour.link, neighbour.key)
        if self._unmet and now - self._introduced >= INTRODUCTION:
            self._unmet, self._introduced = False, now
            at = self._protocol
            self._outbox.extend(at.enter(at.state, at.round, now, at.digest))
        self._outbox.extend(self._protocol.tick(now))

    # What comes in

    def _guard(self) -> None:
        """Answer who may come in."""
        assert self._listener is not None
        for _ in range(MOST_AT_ONCE):
            try:
                refused = self._listener.gate.answer()
            except zmq.Again:
                return
            if refused is not None:
                what = f"the {refused.domain}" + (f" ({refused.failure})" if refused.failure else "")
                self._protocol.standing.turned_away(refused.key, what)

    def _subscribed(self, socket: Socket, frames: Frames) -> None:
        kind = frames[0].bytes
        if kind == b"\x01":
            self._subscribers[socket] += 1
            self._unmet = True  # It may have missed whatever we have published so far.
        elif kind == b"\x00":
            self._subscribers[socket] -= 1
        else:
            raise MessageError("a subscription to a part of what we publish")

    def _from_accepted(self, frames: Frames) -> None:
        sender = sender_of(frames[-1])
        if self._inbox.admit(self._published, sender, frames, 2):
            self._over_link(("accepted", frames[0].bytes), frames[-1].bytes, sender)

    def _from_dialled(self, neighbour: Neighbour, frames: Frames) -> None:
        if self._inbox.admit(self._answered, neighbour.curve, frames, 1):
            self._over_link(neighbour.link, frames[-1].bytes, neighbour.curve)

    def _over_link(self, link: Link, data: bytes, sender: bytes) -> None:
        """Take in a frame, unless its sender has asked for so much that the answers still exceed its budget."""
        now = clock.now()
        if not self._asked.takes(sender, 0, now):
            self.traffic.limit(sender)
            return
        outputs = self._protocol.receive(link, data, now, sender)
        self._asked.charge(sender, sum(len(each.frame) for each in outputs if isinstance(each, Send)), now)
        self._outbox.extend(outputs)

    def _from_ingress(self, frames: Frames) -> None:
        self._heard(sender_of(frames[-1]), frames)

    def _heard(self, sender: bytes, frames: Frames) -> None:
        if self._inbox.admit(self._published, sender, frames, 1):
            data = frames[-1].bytes
            self.traffic.gradient_received += len(data) if data[:1] == bytes([SIGNED_KIND]) else 0
            forward = self._listener is not None
            self._outbox.extend(self._protocol.hear(data, clock.now(), forward, sender))

    def _heed(self, neighbour: Neighbour, line: Line) -> None:
        """Tell the session's thread of a peer that does not let us in.

        While others are heard, one that let us in before is only tried again: handshakes fail before keys are
        proved, so anybody on the way there can make them fail.
        """
        now = clock.now()
        for news in line.heed(now):
            at_first = not (neighbour.joined if line is neighbour.door else line.opened)
            if news is News.OPEN:
                if line is neighbour.door and line.opened > 1:
                    self._protocol.dialled(neighbour.link, neighbour.key)
            elif not at_first and self._protocol.live(now):
                continue
            elif news is News.BROKEN_OFF:
                self._unreachable = told.why_broken_off(neighbour.where, self._key) or self._unreachable
            elif line is neighbour.door or line.refused >= SHUT_OUT:
                self._protocol.standing.refusal = told.not_admitted(neighbour.where, self._key)

    # What goes out

    def _send(self, output: Output) -> None:
        if isinstance(output, Join):
            neighbour = self._neighbours[output.link]
            if not neighbour.joined:
                self._join(neighbour)
        elif isinstance(output, Send):
            if output.link in self._neighbours:
                self._put(self._neighbours[output.link].door.socket, [output.frame], 1)
            elif self._listener is not None:
                _, routing_id = output.link
                assert isinstance(routing_id, bytes)
                self._put(self._listener.router, [routing_id, output.frame], 1)
        else:
            for publications, subscribers in self._subscribers.items():
                self._put(publications, [output.frame], subscribers)

    def _put(self, socket: Socket, frames: list[bytes], copies: int) -> None:
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return  # a full queue; catch-up makes up for it
        size = copies * len(frames[-1])
        self.traffic.sent += size
        if frames[-1][0] == SIGNED_KIND:
            self.traffic.gradient_sent += size

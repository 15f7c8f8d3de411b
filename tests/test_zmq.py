"""Real sockets, several peers in one process: whose frames are taken in, and what ends a link."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
import zmq

from shared_seed import clock
from shared_seed.errors import RecipeError, SwarmError, UnreachableError
from shared_seed.identity import Key
from shared_seed.messages import Stream
from shared_seed.proofs import Order
from shared_seed.swarm import wire
from shared_seed.swarm.address import parse
from shared_seed.swarm.output import Output
from shared_seed.swarm.traffic import MOST_LIMITED, THE_REST, Traffic
from shared_seed.swarm.zmq import bring, check_free, fetch_manifest
from shared_seed.swarm.zmq import line as lines
from shared_seed.swarm.zmq.line import News
from shared_seed.swarm.zmq.sockets import curve
from swarms import ANYWHERE, MANIFEST, OWNER, Swarms, Watched, first_news, guest, has, line, meet, say

ALICE, BOB, CAROL = (Key(bytes([n]) * 32) for n in (1, 2, 3))


@pytest.fixture
def swarms() -> Iterator[Swarms]:
    opened = Swarms()
    yield opened
    opened.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_messages_get_to_everybody_and_each_frame_comes_with_the_key_of_its_neighbour(swarms: Swarms) -> None:
    a, b, c = Watched("a"), Watched("b"), Watched("c")
    alice, address = swarms.listener(a, ALICE)
    bob = swarms.start(b, BOB, None, address)
    carol = swarms.start(c, CAROL, None, address)
    meet(alice, bob, carol)
    for swarm in (alice, bob, carol):
        say(swarm, 5)
    for swarm in (alice, bob, carol):
        assert swarm.wait(has(15), 10)
    assert a.senders == a.linked == {curve(BOB.public), curve(CAROL.public)}
    assert b.senders == b.linked == c.senders == c.linked == {curve(ALICE.public)}
    assert alice.traffic.refused == bob.traffic.refused == carol.traffic.refused == 0


def test_a_thread_that_has_failed_is_told_of_and_does_not_keep_us_from_closing(swarms: Swarms) -> None:
    class Broken(Watched):
        def tick(self, now: float) -> list[Output]:
            raise ZeroDivisionError("by a test")

    swarm = swarms.start(Broken("a"), ALICE)
    swarm._thread.join(10)
    with pytest.raises(SwarmError, match="the network thread has stopped: by a test"):
        swarm.ask(lambda protocol, now: None)
    closing = threading.Thread(target=swarm.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_the_address_of_a_listening_peer_carries_its_key(swarms: Swarms) -> None:
    _, address = swarms.listener(Watched("a"), ALICE)
    assert parse(address).key == ALICE.public
    with pytest.raises(RecipeError, match=r"listens with its own key; leave out the key"):
        swarms.start(Watched("b"), BOB, address)


def test_an_address_without_a_key_is_that_of_a_peer_with_ones_own(swarms: Swarms) -> None:
    alice, address = swarms.listener(Watched("a"), ALICE)
    meet(alice, swarms.start(Watched("b"), ALICE, None, parse(address).endpoint()))


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_peers_meet_over_ipv6(swarms: Swarms) -> None:
    alice = swarms.start(Watched("a"), ALICE, "tcp://[::1]:0")
    assert alice.address is not None
    assert "@[::1]:" in alice.address
    bob = swarms.start(Watched("b"), BOB, None, alice.address)
    meet(alice, bob)
    say(bob)
    assert alice.wait(has(1), 10)


@pytest.mark.parametrize("host", ["0.0.0.0", "*"])
def test_a_peer_may_listen_on_all_interfaces(swarms: Swarms, host: str) -> None:
    alice = swarms.start(Watched("a"), ALICE, f"tcp://{host}:0")
    assert alice.address is not None
    assert f"@{host}:" in alice.address
    meet(alice, swarms.start(Watched("b"), BOB, None, alice.address.replace(host, "127.0.0.1")))


def test_a_host_that_does_not_exist_is_named(swarms: Swarms) -> None:
    with pytest.raises(UnreachableError, match=r"no host called 'nobody\.invalid'.*machine can find"):
        swarms.start(Watched("a"), ALICE, ANYWHERE, "tcp://nobody.invalid:5555")
    with pytest.raises(UnreachableError, match="no host called"):
        fetch_manifest("tcp://nobody.invalid:5555", ALICE, guest(ALICE))


def test_closing_frees_the_ports(swarms: Swarms) -> None:
    alice, address = swarms.listener(Watched("a"), ALICE)
    meet(alice, swarms.start(Watched("b"), BOB, None, address))
    alice.close()
    alice.close()
    check_free(parse(address).endpoint())


def test_who_sends_too_much_is_not_read_and_others_are(swarms: Swarms) -> None:
    a = Watched("a")
    alice, address = swarms.listener(a, ALICE, rate=2000)
    loud = swarms.start(Watched("b"), BOB, None, address)
    meet(alice, loud)
    say(loud, 500)
    name = curve(BOB.public).hex()
    assert alice.wait(lambda p, now: alice.traffic.limited.get(name, 0) > 100, 10)
    assert not alice.ask(has(500))
    calm = swarms.start(Watched("c"), CAROL, None, address)
    meet(calm)
    say(calm, 5)
    assert alice.wait(lambda p, now: p.archive.count(calm.ask(lambda q, _: q.author.stream)) == 5, 10)
    assert set(alice.traffic.limited) == {name}


def test_what_was_dropped_beyond_the_rate_is_made_up_for(swarms: Swarms) -> None:
    alice, address = swarms.listener(Watched("a"), ALICE, rate=20_000)
    bob = swarms.start(Watched("b"), BOB, None, address)
    meet(alice, bob)
    say(bob, 5000)
    assert alice.wait(has(5000), 60)
    assert alice.traffic.limited


def test_an_order_that_an_earlier_one_would_overrule_is_given_again(swarms: Swarms) -> None:
    bob, where = swarms.listener(Watched("b"), BOB)
    before = Order.issue(OWNER, MANIFEST.seal, 9, ALICE.public, True)
    bob.ask(lambda p, now: p.order(before))
    bring(where, OWNER, guest(OWNER), MANIFEST, Order.issue(OWNER, MANIFEST.seal, 5, ALICE.public, False))
    assert bob.ask(lambda p, now: p.archive.orders[ALICE.public].serial) == 10
    assert not bob.ask(lambda p, now: p.archive.is_out(ALICE.public))


def test_senders_beyond_a_bound_are_counted_together() -> None:
    traffic = Traffic()
    for n in range(MOST_LIMITED + 5):
        traffic.limit(n.to_bytes(32, "big"))
    traffic.limit(bytes(32))
    assert len(traffic.limited) == MOST_LIMITED + 1
    assert traffic.limited[THE_REST] == 5
    assert traffic.limited[bytes(32).hex()] == 2


class Tap:
    """Somebody on the way between two peers, who can change a byte of what the listening one says."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.seen = bytearray()
        self.spoils = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        """Carry what comes, until somebody connects to say that it is over."""
        others: dict[socket.socket, socket.socket] = {}
        back: set[socket.socket] = set()
        with ExitStack() as opened:
            opened.enter_context(self._listening)
            while True:
                for end in select.select([self._listening, *others], [], [])[0]:
                    if end is self._listening:
                        near = opened.enter_context(end.accept()[0])
                        far = opened.enter_context(socket.create_connection(("127.0.0.1", self._target)))
                        others |= {near: far, far: near}
                        back.add(far)
                    elif end in others:
                        data = self._heard(end)
                        if data == b"end":
                            return
                        if end in back and data and self.spoils.is_set():
                            self.spoils.clear()
                            data[-1] ^= 1
                        if not self._said(others[end], data):
                            others.pop(others.pop(end))

    def _heard(self, end: socket.socket) -> bytearray:
        try:
            data = bytearray(end.recv(65536))
        except OSError:
            data = bytearray()
        self.seen += data
        return data

    def _said(self, end: socket.socket, data: bytearray) -> bool:
        """Pass on what one end has said; whether it goes on."""
        with suppress(OSError):
            if data:
                end.sendall(data)
                return True
            end.shutdown(socket.SHUT_RDWR)
        return False

    def close(self) -> None:
        """End the thread."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"end")
            self._thread.join(10)


def test_nothing_is_readable_on_the_way_and_a_changed_byte_is_not_taken_in(
    swarms: Swarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "REOPEN", 0.1)
    a = Watched("the name of alice")
    alice, address = swarms.listener(a, ALICE)
    tap = Tap(parse(address).port)
    with line(address.replace(str(parse(address).port), str(tap.port)), zmq.DEALER, BOB) as link:
        assert first_news(link) is News.OPEN
        hello = b"\x10 no greeting, but bytes that one would know again"
        link.socket.send(hello)
        assert alice.wait(lambda p, now: alice.traffic.refused == 1, 10)
        assert len(tap.seen) > len(hello)
        assert hello[2:] not in tap.seen
        tap.spoils.set()
        asks = wire.Hello(Stream.fresh().to_bytes(), "", wire.Guest.of(guest(BOB)), b"")
        link.socket.send(wire.encode(asks))  # The answer is what is spoilt.
        reopened = False
        deadline = clock.now() + 20
        while link.opened < 2 and clock.now() < deadline:
            link.monitor.poll(50)
            link.heed(clock.now())
            reopened |= link.tend(clock.now())
        assert link.opened == 2
        assert reopened, "not only when libzmq misses the heartbeats, 13 s later"
        link.socket.send(hello)
        assert alice.wait(lambda p, now: alice.traffic.refused == 2, 10)
    tap.close()

"""Connections that are opened and then say nothing, on either side; and one that asks for too much."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq

from shared_seed import clock
from shared_seed.admission import Introduction
from shared_seed.errors import UnreachableError
from shared_seed.identity import Key
from shared_seed.messages import Stream
from shared_seed.swarm import wire
from shared_seed.swarm.address import parse
from shared_seed.swarm.budget import BURST
from shared_seed.swarm.zmq import fetch_manifest
from shared_seed.swarm.zmq.sockets import curve
from shared_seed.swarm.zmq.swarm import ANSWERS
from swarms import MANIFEST, TERMS, Swarms, Watched, guest, has, line, meet, say

ALICE, BOB = Key(b"\x01" * 32), Key(b"\x02" * 32)


@pytest.fixture
def swarms() -> Iterator[Swarms]:
    opened = Swarms()
    yield opened
    opened.close()


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """Takes connections, and neither reads nor writes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """Answers no connection at all: its queue is full of others."""
    with ExitStack() as open_, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = open_.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            select.select([], [client], [], 0.05)
        yield listener


def address(listener: socket.socket, key: Key) -> str:
    return f"tcp://{key.public.hex()}@127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("silent", ["mute", "full"])
def test_nobody_answers_where_a_connection_stays_silent(silent: str, request: pytest.FixtureRequest) -> None:
    listener = request.getfixturevalue(silent)
    begun = clock.now()
    with pytest.raises(UnreachableError, match=r"nobody answers at .* within 1 s"):
        fetch_manifest(address(listener, BOB), ALICE, guest(ALICE), timeout=1.0)
    assert 1.0 <= clock.now() - begun < 5.0


@pytest.mark.parametrize("silent", ["mute", "full"])
def test_a_peer_works_with_others_while_one_that_it_dials_stays_silent(
    silent: str, request: pytest.FixtureRequest, swarms: Swarms
) -> None:
    listener = request.getfixturevalue(silent)
    bob, where = swarms.listener(Watched("b"), BOB)
    alice = swarms.start(Watched("a"), ALICE, None, address(listener, BOB), where)
    meet(alice, bob)
    say(alice, 3)
    assert bob.wait(has(3), 10)
    assert alice.wait(lambda p, now: p.has_all(now), 10), "who has not answered is not waited for"
    begun = clock.now()
    alice.close()
    assert clock.now() - begun < 5.0


def test_connections_that_never_speak_keep_nobody_out(swarms: Swarms) -> None:
    bob, where = swarms.listener(Watched("b"), BOB)
    ports = [parse(where).port + n for n in range(3)]
    with ExitStack() as open_:
        for port in ports * 40:
            open_.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        manifest, _ = fetch_manifest(where, ALICE, guest(ALICE), timeout=10.0)
        assert manifest == MANIFEST
        alice = swarms.start(Watched("a"), ALICE, None, where)
        meet(alice, bob)
        say(alice, 3)
        assert bob.wait(has(3), 10)


def test_who_asks_for_much_with_few_bytes_is_answered_at_a_bounded_rate(swarms: Swarms) -> None:
    rate = 2000
    watched = Watched("b")
    bob, where = swarms.listener(watched, BOB, rate)
    say(bob, 500)
    stream = bob.ask(lambda p, now: p.author.stream).to_bytes()
    who = Introduction(ALICE.public, b"a label.")
    ours = Stream(who.peer(MANIFEST.run_bytes)).to_bytes()
    with line(where, zmq.DEALER, ALICE) as asking:
        asking.socket.send(wire.encode(wire.Hello(ours, "a", wire.Guest.of(who), TERMS.digest)))
        for _ in range(150):
            asking.socket.send(wire.encode(wire.Request(stream, 0)))
        begun, received, largest = clock.now(), 0, 0
        while asking.socket.poll(1000):
            size = len(asking.socket.recv())
            received, largest = received + size, max(largest, size)
        took = clock.now() - begun
    assert largest > 4000
    assert largest < received < ANSWERS * rate * (BURST + took) + largest
    assert bob.traffic.limited[curve(ALICE.public).hex()] > 50

"""Who gets in, and what those are told who do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from shared_seed import clock
from shared_seed.archive import Archive
from shared_seed.errors import RefusedError, SwarmError, UnreachableError
from shared_seed.identity import Key, show
from shared_seed.manifest import Admission
from shared_seed.messages import Stream
from shared_seed.swarm.address import Address, parse
from shared_seed.swarm.author import Author, Terms
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.standing import MOST_FAULTS
from shared_seed.swarm.wire import Guest, Hello
from shared_seed.swarm.zmq import Swarm, check_free, fetch_manifest, free_ports, neighbours, trial
from shared_seed.swarm.zmq import line as lines
from shared_seed.swarm.zmq import swarm as swarm_module
from shared_seed.swarm.zmq.gate import Gate, TurnedAway
from shared_seed.swarm.zmq.line import News
from shared_seed.swarm.zmq.sockets import Context, configured, curve
from swarms import ANYWHERE, MANIFEST, OWNER, PORTS, Swarms, Watched, first_news, guest, has, line, meet, say

ALICE, BOB, CAROL = (Key(bytes([n]) * 32) for n in (1, 2, 3))
INVITED = MANIFEST.model_copy(update={"admission": Admission(mode="invite")})
HALL = [zmq.SUB, zmq.XPUB]


@pytest.fixture
def swarms() -> Iterator[Swarms]:
    opened = Swarms()
    yield opened
    opened.close()


def raises_soon(swarm: Swarm) -> None:
    """Give the network up to ten seconds to tell of what went wrong."""
    swarm.wait(lambda p, now: False, 10)


def nobody(key: bytes) -> bool:
    return False


def test_at_the_door_a_stranger_is_told_and_the_listening_peer_knows_who_it_was(swarms: Swarms) -> None:
    a = Watched("a")
    a.greets = a.admits = lambda key: key == curve(ALICE.public)
    alice, address = swarms.listener(a, ALICE)
    assert not a.standing.faults, "its own trial is nobody's fault"
    bob = swarms.start(Watched("b"), BOB, None, address)
    with pytest.raises(RefusedError, match=f"does not admit this machine's key {show(BOB.public)}; send it to"):
        raises_soon(bob)
    with pytest.raises(RefusedError, match=f"does not admit this machine's key {show(BOB.public)}"):
        fetch_manifest(address, BOB, guest(BOB))
    assert [
        fault for fault in alice.ask(lambda p, now: list(p.standing.faults)) if curve(BOB.public).hex() in fault
    ]
    bob.close()


@pytest.mark.parametrize("kind", HALL, ids=["to listen", "to publish"])
def test_a_stranger_does_not_get_into_the_hall(swarms: Swarms, kind: int) -> None:
    a = Watched("a")
    a.admits = lambda key: key == curve(CAROL.public)
    _, address = swarms.listener(a, ALICE)
    with line(address, kind, BOB) as stranger:
        assert first_news(stranger) is News.REFUSED
    with line(address, kind, CAROL) as known:
        assert first_news(known) is News.OPEN
    with line(address, zmq.DEALER, BOB) as greeting:
        assert first_news(greeting) is News.OPEN, "the door is another matter"


def test_one_who_is_welcomed_but_kept_out_of_the_hall_is_told(
    swarms: Swarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "REOPEN", 0.1)
    monkeypatch.setattr(swarm_module, "SHUT_OUT", 3)
    a = Watched("a")
    a.admits = nobody
    _, address = swarms.listener(a, ALICE)
    with pytest.raises(RefusedError, match="does not admit this machine's key"):
        raises_soon(swarms.start(Watched("b"), BOB, None, address))
    assert len(a.standing.faults) == 1


@pytest.mark.parametrize("kind", [zmq.DEALER, *HALL], ids=["door", "to listen", "to publish"])
def test_a_client_without_encryption_is_refused(swarms: Swarms, kind: int) -> None:
    alice, address = swarms.listener(Watched("a"), ALICE)
    context: Context = zmq.Context()
    plain = configured(context, kind)
    monitor = plain.get_monitor_socket()
    plain.connect(parse(address).endpoint(PORTS[kind]))
    seen: set[int] = set()
    failures = {zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL}
    while not seen & failures:
        assert monitor.poll(10_000)
        seen.add(recv_monitor_message(monitor)["event"])
    assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in seen
    assert alice.traffic.received == 0
    plain.disable_monitor()
    monitor.close()
    context.destroy(linger=0)


def test_a_peer_with_another_key_than_expected_is_told_apart_from_one_that_is_away(swarms: Swarms) -> None:
    _, address = swarms.listener(Watched("a"), ALICE)
    there = parse(address)
    wrong = str(Address(there.host, there.port, CAROL.public))
    expected = f"has another key than expected .*{show(CAROL.public)}.*copy the whole address"
    with pytest.raises(UnreachableError, match=expected):
        fetch_manifest(wrong, BOB, guest(BOB))
    with pytest.raises(UnreachableError, match=expected):
        raises_soon(swarms.start(Watched("b"), BOB, None, wrong))
    with pytest.raises(UnreachableError, match=f"this machine's own, {show(BOB.public)}"):
        fetch_manifest(there.endpoint(), BOB, guest(BOB))
    with pytest.raises(UnreachableError, match="nobody answers"):
        fetch_manifest(f"tcp://127.0.0.1:{free_ports()}", BOB, guest(BOB), 0.5)


def test_a_peer_that_does_not_encrypt_is_called_so() -> None:
    context: Context = zmq.Context()
    plain = configured(context, zmq.ROUTER)
    port = plain.bind_to_random_port("tcp://127.0.0.1")
    try:
        with pytest.raises(UnreachableError, match=r"does not encrypt its links \(NULL\)"):
            fetch_manifest(f"tcp://127.0.0.1:{port}", BOB, guest(BOB), 20)
    finally:
        context.destroy(linger=0)


def test_who_is_no_longer_admitted_cannot_connect_again(swarms: Swarms) -> None:
    a = Watched("a")
    alice, address = swarms.listener(a, ALICE)
    meet(alice, swarms.start(Watched("b"), BOB, None, address))
    a.admits = lambda key: key != curve(BOB.public)
    for kind in HALL:
        with line(address, kind, BOB) as again:
            assert first_news(again) is News.REFUSED
        with line(address, kind, CAROL) as other:
            assert first_news(other) is News.OPEN


def test_one_that_is_refused_while_others_are_heard_goes_on_and_gets_in_once_admitted(
    swarms: Swarms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "REOPEN", 0.1)
    a = Watched("a")
    a.admits = nobody
    _, lonely = swarms.listener(a, ALICE)
    other, address = swarms.listener(Watched("c"), CAROL)
    bob = swarms.start(Watched("b"), BOB, None, address)
    meet(bob, other)
    dave = swarms.start(Watched("d"), BOB, None, address, lonely)
    meet(dave)
    with line(lonely, zmq.SUB, BOB) as link:
        assert first_news(link) is News.REFUSED
        a.admits = lambda key: True
        deadline = clock.now() + 10
        while not link.opened and clock.now() < deadline:
            link.monitor.poll(50)
            link.heed(clock.now())
            link.tend(clock.now())
        assert link.opened == 1


def test_a_rule_that_raises_refuses_and_the_network_goes_on(swarms: Swarms) -> None:
    a = Watched("a")
    alice, address = swarms.listener(a, ALICE)
    a.admits = lambda key: 1 // 0 == 0
    with line(address, zmq.SUB, BOB) as unlucky:
        assert first_news(unlucky) is News.REFUSED
    assert [fault for fault in alice.ask(lambda p, now: list(p.standing.faults)) if "ZeroDivisionError" in fault]
    a.admits = lambda key: True
    bob = swarms.start(Watched("b"), BOB, None, address)
    meet(alice, bob)
    say(bob)
    assert alice.wait(has(1), 10)


def test_strangers_leave_room_for_the_faults_of_others() -> None:
    a = Watched("a")
    for n in range(MOST_FAULTS):
        a.standing.turned_away(n.to_bytes(32, "big"), "the hall")
    assert 0 < len(a.standing.faults) < MOST_FAULTS


def test_those_who_are_refused_leave_room_for_the_faults_of_others() -> None:
    a = Protocol(Author(Stream.fresh(), "a"), Terms.of(INVITED, INVITED.sign(OWNER)), Archive(INVITED))
    for n in range(MOST_FAULTS):
        stranger = Key(n.to_bytes(32, "big"))
        hello = Hello(Stream.fresh().to_bytes(), "", Guest(stranger.public, bytes(8)), b"")
        with pytest.raises(RefusedError):
            a.standing.check_hello(hello, a.terms, b"")
    assert 0 < len(a.standing.faults) < MOST_FAULTS


def admit_everybody(gate: Gate) -> TurnedAway | None:
    """A gate that is broken: it asks no rule."""
    frames = gate.socket.recv_multipart(zmq.NOBLOCK)
    gate.socket.send_multipart([b"1.0", frames[1], b"200", b"OK", b"somebody", b""])
    return None


def test_a_peer_does_not_listen_if_its_gate_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "answer", admit_everybody)
    a = Watched("a")
    a.admits = nobody
    endpoint = f"tcp://127.0.0.1:{free_ports()}"
    with pytest.raises(SwarmError, match=r"a client with an unknown key was let in at .* does not listen"):
        Swarm(a, ALICE, endpoint)
    check_free(endpoint)


def test_a_peer_does_not_listen_if_its_gate_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "answer", lambda gate: gate.socket.recv_multipart(zmq.NOBLOCK) and None)
    monkeypatch.setattr(trial, "PATIENCE", 0.3)
    a = Watched("a")
    a.admits = nobody
    with pytest.raises(SwarmError, match=r"was not refused at .* within"):
        Swarm(a, ALICE, ANYWHERE)


def test_a_peer_does_not_listen_without_encryption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "server", lambda context, kind, key, domain: configured(context, kind))
    with pytest.raises(SwarmError, match="a client without encryption was let in"):
        Swarm(Watched("a"), ALICE, ANYWHERE)

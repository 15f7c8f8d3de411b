"""A relay whose disk has no room goes on with what it has, says so, and writes the rest once there is room."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from faulting.disk import files_of_at_most
from shared_seed import clock, history, log
from shared_seed.admission import LABEL_SIZE, Introduction
from shared_seed.errors import RefusedError
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.log import Contents
from shared_seed.messages import Stream
from shared_seed.relay import STATED, Relay, RelaySettings
from swarms import ANYWHERE, MANIFEST, OWNER, Swarms, Watched, has, meet, say

ALICE, BOB = Key(b"\x01" * 32), Key(b"\x02" * 32)


@pytest.fixture
def swarms() -> Iterator[Swarms]:
    opened = Swarms()
    yield opened
    opened.close()


def steps(relay: Relay, done: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = clock.now() + seconds
    while not done():
        assert clock.now() < deadline
        relay.step()


def test_a_relay_goes_on_while_its_disk_is_full(tmp_path: Path, swarms: Swarms) -> None:
    settings = RelaySettings(listen=ANYWHERE, folder=tmp_path)
    relay = Relay(settings, Contents(MANIFEST, signature=MANIFEST.sign(OWNER)), None)
    path = tmp_path / LOG_NAME
    try:
        assert relay.swarm.address is not None
        alice = swarms.start(Watched("a"), ALICE, None, relay.swarm.address)
        meet(alice)
        say(alice, 5)
        steps(relay, lambda: len(log.read(path).signed) == 5)
        assert not relay.trouble
        whole = path.read_bytes()
        with files_of_at_most(len(whole) + 10):
            say(alice, 3)
            steps(relay, lambda: bool(relay.trouble))
            assert "free some space" in relay.trouble
            assert path.read_bytes() == whole, "nothing of what had no room is left"
            bob = swarms.start(Watched("b"), BOB, None, relay.swarm.address)
            meet(bob)
            assert bob.wait(lambda p, now: len(p.archive) >= 5, 10), "it still serves what it holds"
            relay.step()
            assert relay.trouble
        steps(relay, lambda: not relay.trouble)
        assert len(log.read(path).signed) >= 6
        say(alice, 2)
        steps(relay, lambda: len(log.read(path).signed) == 10)
        assert bob.wait(has(10), 10)
    finally:
        relay.close()
    assert not log.read(path).torn


def test_statements_that_hold_no_longer_fill_neither_disk_nor_memory(tmp_path: Path, swarms: Swarms) -> None:
    few = MANIFEST.model_copy(update={"limits": MANIFEST.limits.model_copy(update={"streams_per_key": 4})})
    settings = RelaySettings(listen=ANYWHERE, folder=tmp_path, most_bytes=160_000)
    relay = Relay(settings, Contents(few, signature=few.sign(OWNER)), None)
    path, label = tmp_path / LOG_NAME, itertools.count()

    def flood(times: int) -> int:
        """A peer names itself anew, again and again, and writes nothing; bytes that this takes in a log."""
        guests = [Introduction(ALICE.public, next(label).to_bytes(LABEL_SIZE)) for _ in range(times)]
        relay.swarm.ask(lambda p, now: [p.archive.introduce(guest) for guest in guests])
        relay.step()
        return sum(len(guest.encode()) for guest in guests)

    try:
        begun, told = path.stat().st_size, 0
        for _ in range(20):
            told += flood(50)
            assert path.stat().st_size < begun + 2 * settings.most_bytes * STATED
        assert told > 4 * settings.most_bytes * STATED
        assert not relay.trouble
        with files_of_at_most(path.stat().st_size):
            for _ in range(20):
                flood(50)
            assert relay.trouble
            assert len(relay._unwritten.statements) <= 60
        flood(1)
        assert not relay.trouble
    finally:
        relay.close()
    archive = history.archive_of(log.read(path))
    last = Introduction(ALICE.public, (next(label) - 1).to_bytes(LABEL_SIZE))
    assert archive.introduction(Stream(last.peer(archive.run))) == last


def test_what_comes_while_a_log_cannot_be_written_anew_is_appended(tmp_path: Path, swarms: Swarms) -> None:
    relay = Relay(
        RelaySettings(listen=ANYWHERE, folder=tmp_path), Contents(MANIFEST, signature=MANIFEST.sign(OWNER)), None
    )
    try:
        assert relay.swarm.address is not None
        assert relay._log is not None
        alice = swarms.start(Watched("a"), ALICE, None, relay.swarm.address)
        meet(alice)
        say(alice, 5)
        assert relay.swarm.wait(has(5), 10)
        with files_of_at_most(10):
            relay._shrink(relay._log)
        assert len(log.read(tmp_path / LOG_NAME).signed) == 0
        relay.step()
        assert not relay.trouble
        assert len(log.read(tmp_path / LOG_NAME).signed) == 5
    finally:
        relay.close()


def test_a_relay_takes_up_no_run_of_another_owner(tmp_path: Path, swarms: Swarms) -> None:
    _, where = swarms.listener(Watched("a"), ALICE)
    owners = frozenset({BOB.public})
    settings = RelaySettings(listen=ANYWHERE, folder=tmp_path / "new", join=(where,), owners=owners)
    with pytest.raises(RefusedError, match=f"owner {OWNER.public.hex()}, .* takes those of {BOB.public.hex()}"):
        Relay.open(settings, print)
    assert not (tmp_path / "new").exists()
    kept = replace(settings, folder=tmp_path / "kept", join=())
    begun = Relay(kept, Contents(MANIFEST, signature=MANIFEST.sign(OWNER)), None)
    begun.close()
    with pytest.raises(RefusedError, match="kept has owner"):
        Relay.open(kept, print)

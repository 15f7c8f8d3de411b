"""A relay whose disk has no room goes on with what it has, says so, and writes the rest once there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from faulting.disk import files_of_at_most
from shared_seed import clock, log
from shared_seed.errors import RefusedError
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.log import Contents
from shared_seed.relay import Relay, RelaySettings
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

"""Hostile bytes: each of tests/corpus, and random damage to valid ones, is refused or means what it says."""

from __future__ import annotations

import re
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import make_corpus
from fuzzing import sealing, targets, world
from fuzzing.mutation import EDGES
from fuzzing.targets import HEARD, SEALED, SEPARATOR, TARGETS, Peer
from hostile import frames, manifests
from hostile.entry import SMALL_ORDER, Entry, not_reduced
from shared_seed import errors, folder, history, identity, log
from shared_seed.admission import Invite
from shared_seed.errors import ManifestMismatchError, MessageError, SharedSeedError
from shared_seed.manifest import Manifest
from shared_seed.settings import Settings
from shared_seed.snapshot import LOW_NAME, Snapshot
from shared_seed.swarm import wire

MOST_MEMORY = 200 << 20
"""Bytes that a hostile input may make us allocate; those that are largest are 32 MiB of JSON."""

MOST_SECONDS = 12.0
"""Seconds that it may take under tracemalloc; the slowest takes 1 to 4, what is quadratic would take minutes."""


@pytest.fixture
def _bounded() -> Iterator[None]:
    """Little memory and little time."""
    tracemalloc.start()
    begun = time.process_time()
    yield
    took, (_, peak) = time.process_time() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < MOST_SECONDS
    assert peak < MOST_MEMORY


def by_folder(*names: str) -> Any:
    entries = [entry for entry in make_corpus.ENTRIES if entry.folder in names]
    assert entries
    return pytest.mark.parametrize("entry", entries, ids=[f"{e.folder}/{e.name}" for e in entries])


def refused(entry: Entry, take: Callable[[bytes], object]) -> None:
    """Make sure that what is on disk is refused as the entry says."""
    data = (make_corpus.CORPUS / entry.folder / f"{entry.name}.bin").read_bytes()
    if not entry.refusal:
        take(data)
        return
    with pytest.raises(getattr(errors, entry.refusal)) as raised:
        take(data)
    assert isinstance(raised.value, SharedSeedError)
    assert len(str(raised.value)) < 2000
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", str(raised.value)), "what a terminal would obey"


def test_the_corpus_on_disk_is_what_the_script_makes() -> None:
    found = {str(p.relative_to(make_corpus.CORPUS)): p for p in make_corpus.CORPUS.rglob("*") if p.is_file()}
    made = make_corpus.made()
    assert sorted(found) == sorted(made)
    changed = [name for name, data in made.items() if found[name].read_bytes() != data]
    assert changed == [], "run `python tests/make_corpus.py`"


@by_folder("frames")
@pytest.mark.usefixtures("_bounded")
def test_a_hostile_frame_changes_nothing(entry: Entry) -> None:
    peer = Peer()
    at, before = peer.protocol, peer.fingerprint()

    def take(data: bytes) -> None:
        if entry.way == "published":
            at.hear(data, world.NOW + 1, True)
        else:
            at.receive(world.DIALLED if entry.way == "dialled" else world.GREETED, data, world.NOW + 1)

    effective = at.archive.effective()
    refused(entry, take)
    assert peer.fingerprint()[:2] == before[:2]
    assert at.archive.effective() == effective
    assert not at.take().heard
    assert at.standing.refusal is None
    assert len(at.standing.faults) <= 1
    assert list(at.roster.peers) == [world.stream(world.ALICE)]
    assert at.roster.peers[world.stream(world.ALICE)].beat == 1
    targets.check_archive(at.archive, world.MANIFEST, world.OWNERS)


@by_folder("frames")
def test_a_hostile_frame_does_nothing_before_a_greeting(entry: Entry) -> None:
    peer = Peer(world.protocol(greeted=False))
    before = peer.fingerprint()
    data = (make_corpus.CORPUS / entry.folder / f"{entry.name}.bin").read_bytes()
    for take in (
        lambda: peer.protocol.receive(world.UNKNOWN, data, world.NOW + 1),
        lambda: peer.protocol.hear(data, world.NOW + 1, True),
    ):
        with suppress(MessageError):
            take()
    assert peer.fingerprint()[0] == before[0]
    assert peer.protocol.standing.refusal is None
    peer.check()


@by_folder("manifests")
@pytest.mark.usefixtures("_bounded")
def test_a_hostile_manifest_is_refused(entry: Entry) -> None:
    refused(entry, Manifest.unpack)


@by_folder("logs")
@pytest.mark.usefixtures("_bounded")
def test_a_hostile_log_is_refused(entry: Entry) -> None:
    refused(entry, lambda data: history.archive_of(log.parse(data, "a log")))


@by_folder("snapshots")
@pytest.mark.usefixtures("_bounded")
def test_a_hostile_checkpoint_is_refused(entry: Entry) -> None:
    refused(entry, lambda data: Snapshot.unpack(data, world.note(), "a checkpoint"))


@by_folder("low-bits")
@pytest.mark.usefixtures("_bounded")
def test_hostile_low_bits_are_refused(entry: Entry, tmp_path: Path) -> None:
    who, *_, digest = world.payloads()
    (tmp_path / folder.LOG_NAME).write_bytes(world.Log((who, *world.payloads()[4:-1], digest)).encode())
    (tmp_path / folder.PEER_NAME).write_bytes(world.note())
    (tmp_path / LOW_NAME).write_bytes(world.low_bits())
    whole = Snapshot.load(tmp_path)
    assert whole is not None
    assert {name: bits.tolist() for name, bits in whole.low.items()} == {"w": [[0, 1], [2, 3], [4, 5]]}

    def take(data: bytes) -> None:
        (tmp_path / LOW_NAME).write_bytes(data)
        Snapshot.load(tmp_path)

    refused(entry, take)


@by_folder("peers")
@pytest.mark.usefixtures("_bounded")
def test_a_hostile_note_of_a_stream_is_refused(entry: Entry) -> None:
    refused(entry, lambda data: folder.decode_note(data, "a note"))


@by_folder("invites")
@pytest.mark.usefixtures("_bounded")
def test_a_hostile_invite_is_refused(entry: Entry) -> None:
    def take(data: bytes) -> None:
        Invite.parse(data.decode("utf-8", "replace")).admit(world.CAROL, world.SEAL)

    refused(entry, take)


@pytest.mark.parametrize("name", frames.large())
def test_a_frame_too_large_for_a_file_takes_little(name: str, request: pytest.FixtureRequest) -> None:
    data = frames.large()[name]
    at = world.protocol()
    request.getfixturevalue("_bounded")
    with pytest.raises(MessageError):
        at.receive(world.GREETED, data, world.NOW + 1)


@pytest.mark.parametrize("name", manifests.large())
def test_a_manifest_too_large_for_a_file_takes_little(name: str, request: pytest.FixtureRequest) -> None:
    data = manifests.large()[name]
    request.getfixturevalue("_bounded")
    with pytest.raises(ManifestMismatchError) as raised:
        Manifest.unpack(data)
    assert len(str(raised.value)) < 700


@pytest.mark.usefixtures("_bounded")
def test_a_torn_tail_of_many_small_records_is_looked_through_in_little_time() -> None:
    head = world.Log(()).encode()
    torn = b"\xff\xff" + b"".join(world.record(bytes([n % 256])) for n in range(8000)) + b"\1"
    assert log.parse(head + torn, "a log").torn == len(torn)


@pytest.mark.usefixtures("_bounded")
def test_many_zeros_after_a_torn_record_are_looked_through_in_little_time() -> None:
    whole = world.Log(world.payloads()[:1]).encode()
    assert log.parse(whole + b"\xff" + bytes(64 << 20), "a log").size == len(whole)


@pytest.mark.usefixtures("_bounded")
def test_messages_without_signatures_and_many_introductions_are_parsed_in_little_time() -> None:
    who = [world.introduction(world.ALICE, n.to_bytes(8, "little")).encode() for n in range(3000)]
    said = world.says(world.ALICE, 6000)
    contents = log.parse(world.Log((*who, *said)).encode(), "a log")
    assert (len(contents.statements), len(contents.signed)) == (3000, 0)


# Signatures


@pytest.mark.parametrize("name", SMALL_ORDER)
def test_nothing_is_signed_by_a_key_of_small_order(name: str) -> None:
    for signature in (SMALL_ORDER["identity"] + bytes(32), SMALL_ORDER[name] + bytes(32), bytes(64)):
        assert not identity.verify(SMALL_ORDER[name], b"anything", signature)


def test_a_signature_has_one_form() -> None:
    signature = world.ALICE.sign(b"anything")
    assert identity.verify(world.ALICE.public, b"anything", signature)
    assert not identity.verify(world.ALICE.public, b"anything", not_reduced(signature))
    high = signature[:31] + bytes([signature[31] ^ 0x80]) + signature[32:]
    assert not identity.verify(world.ALICE.public, b"anything", high)


# Valid bytes, so that what is refused above is refused for what is wrong with it


@pytest.mark.parametrize("name", world.frames())
def test_a_valid_frame_is_taken(name: str) -> None:
    data = world.frames()[name]
    assert targets.encoded(wire.decode(data, world.SEAL)) == data
    at = world.protocol()
    if name in ("message", "heartbeat", "pulse"):
        at.hear(data, world.NOW + 1, True)
    elif name in ("welcome", "vacancy", "refusal"):
        at.receive(world.DIALLED, data, world.NOW + 1)
    elif name not in ("bare-message", "offer"):
        at.receive(world.GREETED, data, world.NOW + 1)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds(name: str) -> None:
    target = TARGETS[name]
    taken = [target.takes(data) for data in target.seeds()]
    assert any(taken)
    assert name not in ("codec", "manifest", "manifest-text", "invite", "peer", "wire") or all(taken)


# Random bytes and damage


def damaged(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A seed with bits flipped, pieces cut out, repeated, put in, or taken from another seed."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(data)))
            how = draw(st.integers(0, 5))
            if how == 0 and at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            elif how == 1:
                data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
            elif how == 2:
                data[at : at + draw(st.integers(0, 4))] = draw(st.sampled_from(EDGES))
            elif how == 3:
                del data[at:]
            elif how == 4:
                data[at:at] = bytes(data[at : at + draw(st.integers(1, 40))]) * draw(st.integers(1, 3))
            else:
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(st.integers(0, len(other))) :]
        return bytes(data)

    return st.one_of(build(), build(), build(), st.binary(max_size=300))


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "catchup"])
def test_damage_is_refused_or_means_what_it_says(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=300)
    @given(data=damaged(target.seeds()))
    def check(data: bytes) -> None:
        target.takes(data[: target.largest])

    check()


PARTS = {
    "over a link": [bytes([how]) + data for data in world.frames().values() for how in (0, SEALED)],
    "published": [bytes([how]) + data for data in world.frames().values() for how in (HEARD, HEARD | SEALED)],
    "in a row": TARGETS["catchup"].seeds()[-5:],
}


@pytest.mark.parametrize("way", PARTS)
def test_a_peer_stays_consistent_whatever_comes(way: str) -> None:
    peer = Peer()

    @settings(max_examples=200)
    @given(data=damaged(PARTS[way]))
    def check(data: bytes) -> None:
        try:
            peer.take(data)
        except MessageError:
            return

    check()


@settings(max_examples=60)
@given(order=st.permutations([n for n, name in enumerate(world.frames()) if name not in ("refusal", "welcome")]))
def test_valid_frames_in_any_order_leave_a_peer_consistent(order: list[int]) -> None:
    data = list(world.frames().values())
    peer = Peer()
    parts = [bytes([SEALED | (HEARD if data[n][0] in (0x04, 0x11, 0x12) else 0)]) + data[n] for n in order]
    try:
        peer.take(SEPARATOR.join(parts))
    except MessageError:
        return


def test_sealing_makes_damaged_frames_valid_again() -> None:
    at = world.protocol()
    for name in ("message", "heartbeat", "order", "fork", "chunk"):
        data = world.frames()[name]
        assert sealing.frame(data, at.archive) == data, name
    whole = world.Log(world.payloads()).encode()
    assert sealing.log(whole[:-1] + b"\0") == whole


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "a\u202eb", "\x00", "\udc80"])
def test_a_name_that_the_terminals_of_others_would_obey_is_refused_at_home(name: str) -> None:
    with pytest.raises(errors.RecipeError, match="control characters"):
        Settings(name=name)


def test_nothing_of_the_fuzzer_is_left_in_the_path_of_other_tests() -> None:
    assert "atheris" not in sys.modules

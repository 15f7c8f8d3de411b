"""The log: its bytes built by hand from docs/format.md, and every way in which a file can be damaged."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faulting.disk import files_of_at_most
from shared_seed import log
from shared_seed.admission import TICKET_SIZE
from shared_seed.errors import LogDamagedError, LogError
from shared_seed.log import Contents, RunLog
from shared_seed.manifest import Limits, Manifest, TensorSpec
from shared_seed.messages import Message, Stream
from shared_seed.noise import Family
from shared_seed.signed import Signed
from swarming import ANN, BEN, OWNER, TERMS, ban, introduction, manifest, writer

MANIFEST = Manifest(
    run="0123456789abcdef0123456789abcdef",
    model="tiny",
    frozen_digest="c0ffee",
    tensors=(TensorSpec(name="w", shape=(3, 2), family=Family.DENSE, exponent=21, digest="ab"),),
    epsilon=2.0**-8,
    scale_exponent=0,
    rounds=9,
    start_with=1,
    limits=Limits(learning_rate=0.5, samples_per_message=255),
)
JSON = (
    b'{"admission":{"keys":[],"mode":"open"},"epsilon":0.00390625,"format":2,"frozen_digest":"c0ffee",'
    b'"limits":{"bytes_per_second":1000000,"learning_rate":0.5,"samples_per_message":255,"streams_per_key":1024},'
    b'"lockstep":true,"model":"tiny","nonce":"","owner":"","recipe":null,'
    b'"rounds":9,"run":"0123456789abcdef0123456789abcdef","scale_exponent":0,"start_with":1,"tensors":['
    b'{"digest":"ab","exponent":21,"family":"dense","name":"w","shape":[3,2]}]}'
)
STREAM = Stream(b"peer-number1", 7)
MESSAGES = [
    Message(STREAM, 0, 0, 0.5, b"\x38"),
    Message(STREAM, 1, 1, 0.25, b"\x38\x7f\xc0"),
    Message(Stream(b"peer-number2"), 0, 258, 0.0, bytes(range(255))),
    Message(STREAM, 2, 2, 0.125, b"\x01" * 20),
]
DIGEST = bytes(range(32))
BEGUN = Contents(MANIFEST)


def plain(messages: Iterable[Message]) -> list[Signed]:
    """As a private run has them."""
    return [Signed(message) for message in messages]


# The format, by hand and without the module under test


def checked(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def header(packed: bytes | None = None, version: int = 2, flags: int = 0, signature: bytes = bytes(64)) -> bytes:
    packed = zlib.compress(JSON, 9) if packed is None else packed
    return checked(b"SSEEDLOG" + struct.pack("<HHI", version, flags, len(packed)) + packed + signature)


def record(payload: bytes) -> bytes:
    return checked(struct.pack("<H", len(payload)) + payload)


def payload(peer: bytes, *fields: float, codes: bytes) -> bytes:
    return b"\x01" + peer + struct.pack("<IIIf", *fields) + codes


RECORDS = [
    record(payload(b"peer-number1", 7, 0, 0, 0.5, codes=b"\x38")),
    record(payload(b"peer-number1", 7, 1, 1, 0.25, codes=b"\x38\x7f\xc0")),
    record(payload(b"peer-number2", 0, 0, 258, 0.0, codes=bytes(range(255)))),
    record(payload(b"peer-number1", 7, 2, 2, 0.125, codes=b"\x01" * 20)),
]
DIGEST_RECORD = record(b"\x02" + struct.pack("<I", 4) + DIGEST)
HEADER = header()
WHOLE = HEADER + b"".join(RECORDS)
ENDS = [len(HEADER) + sum(map(len, RECORDS[:n])) for n in range(len(RECORDS) + 1)]
"""Where the header ends and where each record does."""


def written(folder: Path, data: bytes) -> Path:
    path = folder / "gradients.sslog"
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for tests that write one file many times."""
    return tmp_path_factory.mktemp("logs")


# Writing and reading


def test_a_new_log_has_the_documented_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run_log = RunLog.create(path, BEGUN)
    run_log.append([], plain(MESSAGES[:1]))
    run_log.append([], plain(MESSAGES[1:]))
    run_log.close()
    assert path.read_bytes() == WHOLE
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_a_log_that_is_replaced_has_the_new_bytes_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run_log = RunLog.create(path, BEGUN)
    run_log.append([], plain(MESSAGES))
    run_log.replace(replace(BEGUN, signed=plain(MESSAGES[:2]), digest=(2, DIGEST)))
    digest = record(b"\x02" + struct.pack("<I", 2) + DIGEST)
    assert path.read_bytes() == HEADER + RECORDS[0] + RECORDS[1] + digest
    run_log.append([], plain(MESSAGES[2:]))
    run_log.close()
    assert path.read_bytes() == HEADER + RECORDS[0] + RECORDS[1] + digest + RECORDS[2] + RECORDS[3]
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_statements_and_signatures_have_the_documented_bytes(tmp_path: Path) -> None:
    one = writer(ANN, 2)
    fork = one.fork(one.branched(1).more(1, code=1), 1)
    statements = [introduction(ANN, 7, bytes(TICKET_SIZE)), ban(BEN), fork]
    path = tmp_path / "log"
    run_log = RunLog.create(path, Contents(TERMS, signature=TERMS.sign(OWNER)))
    run_log.append(statements, [one.signed[0], Signed(one.messages[1])])
    run_log.close()
    whole = header(TERMS.pack(), signature=TERMS.sign(OWNER))
    whole += record(b"\x05" + ANN.public + b"\x07" + bytes(7) + bytes(TICKET_SIZE))
    whole += record(b"\x06" + struct.pack("<I", 1) + BEN.public + b"\x01" + ban(BEN).signature)
    whole += record(fork.encode())
    whole += record(b"\x04" + one.messages[0].encode()[1:] + one.signed[0].signature)
    whole += record(one.messages[1].encode())
    assert path.read_bytes() == whole
    contents = log.read(path)
    assert contents.statements == statements
    assert contents.signed == [one.signed[0], Signed(one.messages[1])]
    assert log.encode(contents) == whole


def test_a_statement_after_a_digest_makes_it_a_digest_of_something_else(tmp_path: Path) -> None:
    order = record(ban(BEN).encode())
    contents = log.read(written(tmp_path, WHOLE + DIGEST_RECORD + order))
    assert contents.digest is None
    assert not contents.finished
    assert log.read(written(tmp_path, WHOLE + order + DIGEST_RECORD)).finished


@pytest.mark.parametrize("signature", [bytes(64), TERMS.sign(ANN), manifest(nonce=2).sign(OWNER)])
def test_a_header_that_the_owner_has_not_signed_is_refused(tmp_path: Path, signature: bytes) -> None:
    path = written(tmp_path, header(TERMS.pack(), signature=signature))
    with pytest.raises(LogError, match="not signed by its owner"):
        log.read(path)


def test_the_documented_bytes_are_read(tmp_path: Path) -> None:
    contents = log.read(written(tmp_path, WHOLE + DIGEST_RECORD))
    assert contents.manifest == MANIFEST
    assert contents.messages == MESSAGES
    assert contents.digest == (4, DIGEST)
    assert (contents.size, contents.torn) == (len(WHOLE + DIGEST_RECORD), 0)


def test_a_log_without_records_is_whole(tmp_path: Path) -> None:
    contents = log.read(written(tmp_path, HEADER))
    assert (contents.messages, contents.digest, contents.torn) == ([], None, 0)


def test_appended_messages_are_in_the_file_before_it_is_closed(tmp_path: Path) -> None:
    run_log = RunLog.create(tmp_path / "log", BEGUN)
    run_log.append([], plain(MESSAGES))
    assert log.read(tmp_path / "log").messages == MESSAGES
    run_log.close()


def test_the_last_digest_counts_and_messages_may_follow_it(tmp_path: Path) -> None:
    first = record(b"\x02" + struct.pack("<I", 1) + bytes(32))
    contents = log.read(written(tmp_path, HEADER + RECORDS[0] + first + RECORDS[1] + DIGEST_RECORD + RECORDS[2]))
    assert contents.messages == MESSAGES[:3]
    assert contents.digest == (4, DIGEST)


@given(
    messages=st.lists(
        st.builds(
            Message,
            st.builds(Stream, st.binary(min_size=12, max_size=12), st.integers(0, 2**32 - 1)),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.floats(0, 1, width=32).map(abs),
            st.binary(min_size=1, max_size=255),
        ),
        max_size=6,
    )
)
def test_what_is_appended_is_read(folder: Path, messages: list[Message]) -> None:
    path = folder / "round-trip"
    path.unlink(missing_ok=True)
    run_log = RunLog.create(path, BEGUN)
    run_log.append([], plain(messages))
    run_log.close()
    assert log.read(path).messages == messages


def test_resume_goes_on_after_the_last_whole_record(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + RECORDS[0] + RECORDS[1][:-3])
    contents = log.read(path)
    assert contents.torn == len(RECORDS[1]) - 3
    run_log = RunLog.resume(path, contents)
    run_log.append([], plain(MESSAGES[1:]))
    run_log.close()
    assert path.read_bytes() == WHOLE


def test_resume_of_a_log_without_records(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER)
    run_log = RunLog.resume(path, log.read(path))
    run_log.append([], plain(MESSAGES))
    run_log.close()
    assert path.read_bytes() == WHOLE


def test_close_may_be_called_again(tmp_path: Path) -> None:
    run_log = RunLog.create(tmp_path / "log", BEGUN)
    run_log.close()
    run_log.close()
    assert (tmp_path / "log").read_bytes() == HEADER


def test_create_leaves_a_file_that_is_there_alone(tmp_path: Path) -> None:
    path = written(tmp_path, b"something else")
    with pytest.raises(LogError, match="already"):
        RunLog.create(path, BEGUN)
    assert path.read_bytes() == b"something else"


def test_create_replaces_the_remains_of_one_that_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / "log.new").write_bytes(HEADER[:10])
    RunLog.create(tmp_path / "log", BEGUN).close()
    assert (tmp_path / "log").read_bytes() == HEADER


def test_create_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot write"):
        RunLog.create(tmp_path / "missing" / "log", BEGUN)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="missing-log"):
        log.read(tmp_path / "missing-log")


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError):
        log.read(tmp_path)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_full_disk_is_an_error_and_leaves_the_log_as_it_was(tmp_path: Path, resumed: bool) -> None:
    path = tmp_path / "log"
    run_log = RunLog.create(path, BEGUN)
    run_log.append([], plain(MESSAGES[:1]))
    with files_of_at_most(ENDS[1] + 10), pytest.raises(LogError, match="cannot append"):
        run_log.append([], plain(MESSAGES[1:]))
    contents = log.read(path)
    assert contents.messages == MESSAGES[:1]
    assert contents.torn == 0
    run_log.append([], plain(MESSAGES[1:]))
    run_log.close()
    assert log.read(path).messages == MESSAGES


def test_a_log_closes_on_a_disk_that_is_still_full(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run_log = RunLog.create(path, BEGUN)
    with files_of_at_most(ENDS[0] + 10):
        with pytest.raises(LogError, match="free some space"):
            run_log.append([], plain(MESSAGES))
        run_log.close()
    with pytest.raises(ValueError, match="closed"):
        run_log.append([], plain(MESSAGES))
    assert log.read(path).messages == []


# Torn tails


def test_a_log_cut_anywhere_among_its_records_keeps_all_whole_ones(folder: Path) -> None:
    for length in range(len(HEADER), len(WHOLE) + 1):
        contents = log.read(written(folder, WHOLE[:length]))
        whole = sum(end <= length for end in ENDS) - 1
        assert contents.messages == MESSAGES[:whole]
        assert contents.size == ENDS[whole]
        assert contents.torn == length - ENDS[whole]


def test_a_log_cut_inside_a_digest_keeps_the_messages(folder: Path) -> None:
    for length in range(1, len(DIGEST_RECORD)):
        contents = log.read(written(folder, WHOLE + DIGEST_RECORD[:length]))
        assert (contents.messages, contents.digest, contents.torn) == (MESSAGES, None, length)


def test_a_log_cut_anywhere_in_its_header_is_an_error(folder: Path) -> None:
    for length in range(len(HEADER)):
        path = written(folder, HEADER[:length])
        with pytest.raises(LogError):
            log.read(path)


@pytest.mark.parametrize("zeros", [1, 2, 3, 6, 7, 290, 291, 4096, 100_000])
def test_zeros_at_the_end_are_a_torn_tail(tmp_path: Path, zeros: int) -> None:
    contents = log.read(written(tmp_path, WHOLE + bytes(zeros)))
    assert contents.messages == MESSAGES
    assert (contents.size, contents.torn) == (len(WHOLE), zeros)


@pytest.mark.parametrize("kept", [1, 2, 3, 100, 285])
@pytest.mark.parametrize("zeros", [1, 100, 4096])
def test_half_a_record_and_zeros_are_a_torn_tail(tmp_path: Path, kept: int, zeros: int) -> None:
    # A file system that had written the first of a record's two pages leaves this after a power cut.
    contents = log.read(written(tmp_path, HEADER + RECORDS[0] + RECORDS[2][:kept] + bytes(zeros)))
    assert contents.messages == MESSAGES[:1]
    assert contents.size == ENDS[1]


@settings(max_examples=100)
@given(tail=st.binary(min_size=1, max_size=200))
def test_a_short_tail_of_garbage_costs_no_whole_record(folder: Path, tail: bytes) -> None:
    contents = log.read(written(folder, WHOLE + tail))
    assert contents.messages == MESSAGES
    assert contents.torn == len(tail)


def test_a_long_tail_of_garbage_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE + b"\xaa" * 70_000)
    with pytest.raises(LogDamagedError, match=f"byte {len(WHOLE)} "):
        log.read(path)


# Damage


@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_a_changed_byte_before_the_last_record_is_an_error_that_names_the_offset(folder: Path, mask: int) -> None:
    for position in range(ENDS[0], ENDS[-2]):
        data = bytearray(WHOLE)
        data[position] ^= mask
        start = max(end for end in ENDS if end <= position)
        path = written(folder, bytes(data))
        with pytest.raises(LogDamagedError, match=f"byte {start} "):
            log.read(path)


@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_a_changed_byte_just_before_a_short_last_record_is_an_error_too(folder: Path, mask: int) -> None:
    for position in range(ENDS[0], ENDS[1]):
        data = bytearray(HEADER + RECORDS[0] + RECORDS[1])
        data[position] ^= mask
        path = written(folder, bytes(data))
        with pytest.raises(LogDamagedError, match=f"byte {ENDS[0]} "):
            log.read(path)


@pytest.mark.parametrize(
    "tail",
    [b"", b"\x14", RECORDS[3][:20], RECORDS[3][:-1], bytes(5)],
    ids=["none", "a byte", "half", "most", "zeros"],
)
def test_a_changed_byte_before_a_whole_record_is_an_error_though_the_tail_is_torn(
    tmp_path: Path, tail: bytes
) -> None:
    # The record says that it ends inside the file, and whole ones follow: no unfinished append looks like that.
    data = bytearray(HEADER + RECORDS[0] + RECORDS[1] + tail)
    data[ENDS[0] + 10] ^= 0xFF
    path = written(tmp_path, bytes(data))
    with pytest.raises(LogDamagedError, match=f"byte {ENDS[0]} "):
        log.read(path)


@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_a_changed_byte_in_the_last_record_costs_that_record_alone(folder: Path, mask: int) -> None:
    for position in range(ENDS[-2], ENDS[-1]):
        data = bytearray(WHOLE)
        data[position] ^= mask
        contents = log.read(written(folder, bytes(data)))
        assert contents.messages == MESSAGES[:-1]
        assert contents.torn == len(RECORDS[-1])


@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_a_changed_byte_in_the_header_is_an_error(folder: Path, mask: int) -> None:
    for position in range(len(HEADER)):
        data = bytearray(WHOLE)
        data[position] ^= mask
        path = written(folder, bytes(data))
        with pytest.raises(LogError):
            log.read(path)


@settings(max_examples=200)
@given(data=st.data())
def test_no_damage_gives_other_messages(folder: Path, data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for position in data.draw(st.lists(st.integers(0, len(WHOLE) - 1), min_size=1, max_size=5)):
        damaged[position] = data.draw(st.integers(0, 255))
    path = written(folder, bytes(damaged))
    try:
        found = log.read(path).messages
    except LogError:
        return
    assert found == MESSAGES[: len(found)]


def test_a_record_removed_from_the_middle_of_another_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + RECORDS[0] + RECORDS[1][:20] + RECORDS[2] + RECORDS[3])
    with pytest.raises(LogDamagedError, match=f"byte {ENDS[1]} "):
        log.read(path)


def test_half_a_record_that_carries_a_record_in_its_codes_is_a_torn_tail(tmp_path: Path) -> None:
    # The codes are another peer's to choose; they must not turn a crash into damage.
    codes = record(b"\x7f") * 30
    torn = record(payload(b"peer-number3", 0, 0, 0, 0.5, codes=codes))[:-1]
    contents = log.read(written(tmp_path, WHOLE + torn))
    assert contents.messages == MESSAGES
    assert contents.torn == len(torn)


@pytest.mark.parametrize(
    "body",
    [
        b"\x01" + bytes(28),
        b"\x03" + bytes(40),
        b"\x02" + bytes(35),
        payload(b"peer-number1", 7, 0, 0, float("nan"), codes=b"\x38"),
    ],
    ids=["no codes", "unknown kind", "short digest", "NaN rate"],
)
def test_a_checked_record_that_is_no_message_is_damage_at_its_offset(tmp_path: Path, body: bytes) -> None:
    path = written(tmp_path, HEADER + RECORDS[0] + record(body) + RECORDS[1])
    with pytest.raises(LogDamagedError, match=f"byte {ENDS[1]}:"):
        log.read(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (header(version=1), "version 1, .*reads version 2"),
        (header(version=3), "version 3"),
        (header(version=0xFFFF) + RECORDS[0], "version 65535"),
        (header(flags=1), "flags 1"),
        (b"SSEEDLOh" + HEADER[8:], "not a gradient log"),
        (b"", "not a gradient log"),
        (b"PK\x03\x04" + bytes(100), "not a gradient log"),
        (HEADER[:12] + b"\xff\xff\xff\xff" + HEADER[16:], "cut off"),
        (HEADER[:-1] + bytes([HEADER[-1] ^ 1]), "damaged in its header"),
    ],
    ids=["past", "future", "far future", "flags", "magic", "empty", "zip", "huge manifest", "check"],
)
def test_a_header_of_another_kind_is_refused_and_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(LogError, match=says):
        log.read(path)


@pytest.mark.parametrize(
    "packed", [b"", b"garbage", zlib.compress(b"{}")], ids=["empty", "garbage", "empty object"]
)
def test_a_header_whose_manifest_is_none_is_a_log_error(tmp_path: Path, packed: bytes) -> None:
    path = written(tmp_path, header(packed))
    with pytest.raises(LogError):
        log.read(path)

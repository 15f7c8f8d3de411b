"""A log whose torn tail held the signature that proved the messages before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared_seed import history, log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import EquivocationError
from shared_seed.log import Contents, RunLog
from shared_seed.messages import Message, Stream
from shared_seed.signed import Statement
from swarming import ANN, OWNER, TERMS

WRITER = ANN
MANIFEST = TERMS
INTRODUCTION = Introduction(WRITER.public, b"a label!")
STREAM = Stream(INTRODUCTION.peer(MANIFEST.run_bytes))


def caught_up(live: int, fetched: int) -> Archive:
    """The archive of who heard the first ``live`` messages one by one and fetched ``fetched`` more."""
    theirs, ours = Archive(MANIFEST), Archive(MANIFEST)
    for archive in (theirs, ours):
        archive.introduce(INTRODUCTION)
    for number in range(live):
        ours.accept(theirs.publish(Message(STREAM, number, number, 0.25, b"\x38"), WRITER))
    for number in range(live, live + fetched):
        theirs.publish(Message(STREAM, number, number, 0.25, b"\x38"), WRITER)
    if fetched == 0:
        return theirs
    [stretch] = theirs.stretches(STREAM, live, fetched)
    assert ours.accept_stretch(STREAM, stretch) == fetched
    return ours


def write(path: Path, archive: Archive) -> None:
    news = archive.take()
    run_log = RunLog.create(path, Contents(MANIFEST, signature=MANIFEST.sign(OWNER)))
    run_log.append(news.statements, news.heard)
    run_log.close()


@pytest.mark.parametrize("cut", [1, 70, 200])
def test_messages_that_nothing_proves_any_more_are_part_of_the_torn_tail(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    archive = caught_up(live=3, fetched=5)
    write(path, archive)
    whole = path.read_bytes()
    assert len(log.read(path).messages) == 8
    path.write_bytes(whole[:-cut])
    contents = log.read(path)
    assert [m.number for m in contents.messages] == [0, 1, 2]
    assert contents.torn > 0
    assert contents.size + contents.torn == len(whole) - cut
    restored = history.archive_of(contents)
    assert restored.count(STREAM) == 3
    # What is fetched again goes behind what is whole.
    again = caught_up(live=3, fetched=5).take()
    run_log = RunLog.resume(path, contents)
    run_log.append([], again.heard[3:])
    run_log.close()
    assert path.read_bytes() == whole
    assert history.archive_of(log.read(path)).digest() == archive.digest()


def test_a_cut_between_two_records_is_as_good_as_one_inside(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, caught_up(live=0, fetched=2))
    whole = path.read_bytes()
    signed_record = 2 + len(log.read(path).signed[-1].encode()) + 4
    path.write_bytes(whole[:-signed_record])
    contents = log.read(path)
    assert contents.messages == []
    assert contents.torn > 0
    assert contents.statements == [INTRODUCTION]


def test_messages_up_to_a_proven_fork_need_no_signature(tmp_path: Path) -> None:
    path = tmp_path / "log"
    archive = caught_up(live=0, fetched=4)
    other = caught_up(live=2, fetched=0).publish(Message(STREAM, 2, 2, 0.125, b"\x39"), WRITER)
    with pytest.raises(EquivocationError):
        archive.accept(other)
    news = archive.take()
    statements: list[Statement] = [INTRODUCTION, *archive.forks.values()]
    run_log = RunLog.create(path, Contents(MANIFEST, signature=MANIFEST.sign(OWNER)))
    run_log.append(statements, news.heard[:2])
    run_log.close()
    contents = log.read(path)
    assert [s.signature for s in contents.signed] == [b"", b""]
    assert contents.torn == 0
    assert history.archive_of(contents).count(STREAM) == 2

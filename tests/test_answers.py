"""Answers to neighbours within a budget, and catching up in parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from shared_seed import history, log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.identity import Key
from shared_seed.log import Contents, RunLog
from shared_seed.messages import Message, Stream
from shared_seed.swarm import wire
from shared_seed.swarm.answers import MOST_ASKERS, MOST_WAITING, PASS, Answers, Supply
from shared_seed.swarm.author import Author
from shared_seed.swarm.output import Link, Output, Publish, Send
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State
from swarms import MANIFEST, OWNER, TERMS

LINK: Link = ("accepted", b"j")
UP: Link = ("dialled", "relay")
NARROW = Supply(each=10_000, total=1_000_000, burst=1.0)


def request(number: int) -> wire.Request:
    return wire.Request(number.to_bytes(16, "little"), 0)


def answered(answers: Answers, now: float, size: int) -> list[object]:
    """Who is answered in one pass, if every answer has this size."""
    out = []
    answers.begin_pass()
    while (due := answers.due(now)) is not None:
        answers.charge(due[0], size, now)
        out.append(due[0])
    return out


def test_an_asker_that_has_used_up_its_budget_waits_until_it_has_filled_again() -> None:
    answers = Answers(Supply(each=1000, total=10**9, burst=1.0))
    for number in range(4):
        answers.ask("a", LINK, request(number))
    assert answered(answers, 0.0, 800) == ["a", "a"], "the second one leaves a debt of 600"
    assert not answers.is_due(0.5)
    assert answered(answers, 0.59, 800) == []
    assert answers.is_due(0.7)
    assert answered(answers, 0.7, 800) == ["a"]
    assert answered(answers, 10.0, 800) == ["a"]
    assert len(answers) == 0


def test_askers_take_turns_and_one_in_debt_does_not_keep_others_waiting() -> None:
    answers = Answers(Supply(each=1000, total=10**9, burst=1.0))
    for number in range(3):
        answers.ask("a", LINK, request(number))
    for number in range(2):
        answers.ask("b", LINK, request(number))
    assert answered(answers, 0.0, 400) == ["a", "b", "a", "b", "a"]
    for asker in ("a", "b"):
        answers.ask(asker, LINK, request(9))
    assert answered(answers, 0.0, 400) == ["b"]


def test_all_askers_together_get_no_more_than_the_whole_supply() -> None:
    answers = Answers(Supply(each=10_000, total=1000, burst=1.0))
    for asker in range(20):
        answers.ask(asker, LINK, request(0))
    given = len(answered(answers, 0.0, 100))
    assert given == 10
    assert len(answered(answers, 0.5, 100)) == 5


def test_publications_have_their_turn_after_a_bounded_amount_of_answers() -> None:
    answers = Answers(Supply())
    for number in range(10):
        answers.ask("a", LINK, request(number))
    assert len(answered(answers, 0.0, PASS // 2)) == 2
    assert answers.is_due(0.0), "the rest goes on in the next pass"
    assert len(answered(answers, 0.0, PASS // 2)) == 2


def test_what_waits_is_bounded_and_the_same_request_waits_once() -> None:
    answers = Answers(Supply(each=1000, total=10**9))
    for _ in range(5):
        answers.ask("a", LINK, request(0))
    assert len(answers) == 1
    for number in range(10 * MOST_WAITING):
        answers.ask("a", LINK, request(number))
    assert len(answers) == MOST_WAITING
    for asker in range(2 * MOST_ASKERS):
        answers.ask(asker, LINK, request(0))
    assert len(answers) == MOST_WAITING + MOST_ASKERS - 1


# Two protocols, of which one dials the other


def author(name: str, number: int) -> Author:
    key = Key(bytes([number]) * 32)
    introduction = Introduction(key.public, name.encode().ljust(8)[:8])
    return Author(Stream(introduction.peer(MANIFEST.run_bytes)), name, key, introduction)


def relay(streams: int, messages: int, supply: Supply | None = None) -> Protocol:
    """One that holds so many messages in so many streams."""
    archive = Archive(MANIFEST)
    for number in range(streams):
        writer = author("writer", 50 + number)
        assert writer.introduction is not None
        archive.introduce(writer.introduction)
        for n in range(messages):
            archive.publish(Message(writer.stream, n, n, 0.25, bytes([n % 120])), writer.key)
    archive.take()
    found = Protocol(author("relay", 1), TERMS, archive, supply=supply)
    found.enter(State.RELAYING, 0, 0.0)
    return found


@dataclass
class Pair:
    """Carries frames between a relay and a joiner; counts bytes of chunks by stream."""

    relay: Protocol
    joiner: Protocol
    now: float = 0.0
    chunks: dict[bytes, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.joiner.dialled(UP)

    @property
    def received(self) -> int:
        return sum(map(sum, self.chunks.values()))

    def carry(self, sender: Protocol, outputs: Iterable[Output]) -> None:
        waiting = [(sender, output) for output in outputs]
        while waiting:
            source, output = waiting.pop(0)
            if not isinstance(output, Send):
                continue
            target, link = (self.joiner, UP) if source is self.relay else (self.relay, LINK)
            frame = wire.decode(output.frame, MANIFEST.seal)
            if isinstance(frame, wire.Chunk):
                self.chunks.setdefault(frame.stream, []).append(len(output.frame))
            waiting += [(target, reply) for reply in target.receive(link, output.frame, self.now)]

    def run(self, seconds: float, until: int | None = None) -> None:
        end = self.now + seconds
        while self.now < end and (until is None or len(self.joiner.archive) < until):
            self.now += 0.05
            for source, target in ((self.joiner, self.relay), (self.relay, self.joiner)):
                outputs = source.tick(self.now)
                for output in outputs:
                    if isinstance(output, Publish):
                        target.hear(output.frame, self.now, forward=False)
                self.carry(source, outputs)


def joiner(archive: Archive | None = None) -> Protocol:
    found = Protocol(author("joiner", 2), TERMS, archive or Archive(MANIFEST))
    found.enter(State.LOADING, 0, 0.0)
    return found


def test_a_joiner_catches_up_within_the_budget_of_its_link() -> None:
    pair = Pair(relay(20, 500, NARROW), joiner())
    largest = 0
    while len(pair.joiner.archive) < 10_000:
        pair.run(1.0)
        largest = max([largest, *(size for sizes in pair.chunks.values() for size in sizes)])
        assert pair.received <= NARROW.each * (pair.now + NARROW.burst) + largest
        assert pair.now < 60
    assert pair.now > 5, "it holds 20 times what the burst is"
    assert pair.joiner.archive.digest() == pair.relay.archive.digest()


def test_with_the_usual_budget_a_joiner_catches_up_at_once() -> None:
    pair = Pair(relay(20, 500), joiner())
    pair.run(10.0, until=10_000)
    assert pair.now < 3
    assert all(len(sizes) == 1 for sizes in pair.chunks.values()), "nothing is sent twice"


def test_publications_are_passed_on_while_a_joiner_waits_for_its_budget() -> None:
    pair = Pair(relay(20, 500, NARROW), joiner())
    pair.run(2.0)
    assert 0 < len(pair.joiner.archive) < 10_000
    writer = author("writer", 50)
    ours = history.archive_of(history.contents_of(pair.relay.archive, MANIFEST, MANIFEST.sign(OWNER)))
    signed = ours.publish(Message(writer.stream, 500, 500, 0.25, b"\x38"), writer.key)
    assert pair.relay.hear(signed.encode(), pair.now, forward=True) == [Publish(signed.encode())]


def test_a_joiner_that_is_killed_goes_on_from_its_log_and_fetches_the_rest_alone(tmp_path: Path) -> None:
    whole = Pair(relay(20, 500), joiner())
    whole.run(10.0, until=10_000)
    path = tmp_path / "log"
    begun = Contents(MANIFEST, signature=MANIFEST.sign(OWNER))
    pair, kept = Pair(relay(20, 500, NARROW), joiner()), RunLog.create(path, begun)
    while len(pair.joiner.archive) < 5000:
        pair.run(0.5)
        news = pair.joiner.take()
        kept.append(news.statements, news.heard)
    kept.close()
    # The last bytes did not reach the disk.
    path.write_bytes(path.read_bytes()[:-100])
    archive = history.archive_of(log.read(path))
    had = len(archive)
    assert 4000 < had < 10_000
    again = Pair(relay(20, 500), joiner(archive))
    again.run(10.0, until=10_000)
    assert again.joiner.archive.digest() == whole.joiner.archive.digest()
    assert again.received < whole.received * (10_000 - had) / 10_000 * 1.3


def test_a_run_taken_up_quietly_is_the_same_and_has_no_news(tmp_path: Path) -> None:
    contents = history.contents_of(relay(3, 200).archive, MANIFEST, MANIFEST.sign(OWNER))
    loud, quiet = Archive(MANIFEST), Archive(MANIFEST)
    history.restore(loud, contents)
    history.restore(quiet, contents, quietly=True)
    assert loud.digest() == quiet.digest()
    assert len(loud.take().fresh) == 600
    assert not quiet.take().fresh


def test_a_log_keeps_messages_as_bytes_and_gives_what_was_written(tmp_path: Path) -> None:
    contents = history.contents_of(relay(3, 200).archive, MANIFEST, MANIFEST.sign(OWNER))
    path = tmp_path / "log"
    RunLog.create(path, contents).close()
    read = log.read(path)
    assert list(read.signed) == list(contents.signed)
    assert read.signed[-1] == contents.signed[-1]
    assert list(read.signed[10:20]) == list(contents.signed[10:20])
    assert read.messages == contents.messages
    assert log.encode(replace(read, size=0)) == path.read_bytes()

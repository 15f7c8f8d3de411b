"""The fault runner of benchmarks/faults.py: its schedule is its seed, its verdict sees what is broken."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shared_seed import log
from shared_seed.admission import Introduction
from shared_seed.archive import Archive
from shared_seed.errors import MessageError
from shared_seed.folder import LOG_NAME
from shared_seed.identity import Key
from shared_seed.log import RunLog
from shared_seed.messages import Message, Stream
from shared_seed.signed import Signed

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

Event = dict[str, Any]


pytestmark = pytest.mark.usefixtures("benchmarks")


# The schedule


def test_a_seed_is_a_schedule() -> None:
    from faulting.schedule import Plan, schedule

    assert schedule(Plan(60, 8, 2, seed=1)) == schedule(Plan(60, 8, 2, seed=1))
    assert schedule(Plan(60, 8, 2, seed=1)) != schedule(Plan(60, 8, 2, seed=2))


@pytest.mark.parametrize("seed", range(5))
def test_an_hour_of_schedule_has_what_was_asked_for(seed: int) -> None:
    from faulting.schedule import LONGEST, SHORTEST, STEADY, After, Frames, Kind, Plan, schedule

    actions = schedule(Plan(3600, 32, 2, seed, kills=2000))
    gaps = [b.at - a.at for a, b in itertools.pairwise(actions)]
    assert min(gaps) >= SHORTEST - 1e-9
    assert max(gaps) <= LONGEST + 1e-9
    assert 3599 < actions[-1].at < 3600
    kills = [a for a in actions if a.kind is Kind.KILL]
    assert 2000 < len(kills) < 3000
    assert {a.how for a in kills} == set(After)
    assert {a.kind for a in actions} == set(Kind)
    assert {a.how for a in actions if a.kind is Kind.HOSTILE} == set(Frames)
    partitions = [a for a in actions if a.kind is Kind.PART]
    assert {a.how for a in partitions} == {"held", "closed", "unplugged"}
    assert min(a.seconds for a in partitions) >= 2
    assert 50 < max(a.seconds for a in partitions) <= 60
    assert {len(a.relays) for a in partitions} == {1, 2}
    assert {len(a.relays) for a in actions if a.kind is Kind.KILL_RELAY} == {1, 2}
    assert {p for a in kills for p in a.peers} == set(range(32)) - {STEADY}


def test_many_kills_in_a_short_time_are_on_the_schedule_or_refused() -> None:
    from faulting.schedule import Kind, Plan, schedule

    actions = schedule(Plan(120, 16, 1, kills=150))
    assert sum(a.kind is Kind.KILL for a in actions) >= 150
    with pytest.raises(ValueError, match="expected at most 200, so that there is something to kill"):
        Plan(120, 16, 1, kills=201)
    with pytest.raises(ValueError, match="expected 2 to 200 peers"):
        Plan(120, 1, 1)


# The verdict


def healthy() -> list[Event]:
    """What processes note if nothing goes wrong, in order of time; two peers, three messages."""
    held = {"aa 0": "d0", "aa 1": "d1", "bb 0": "d2"}
    events: list[Event] = [
        {"event": "start", "who": "peer1", "life": 1, "full": False},
        {"event": "step", "who": "peer0", "stream": "aa", "number": 0, "digest": "d0", "round": 1, "kept": {}},
        {"event": "step", "who": "peer0", "stream": "aa", "number": 1, "digest": "d1", "kept": {"aa": [0, 1]}},
        {"event": "step", "who": "peer1", "stream": "bb", "number": 0, "digest": "d2", "kept": {"aa": [0, 2]}},
        {"event": "end", "who": "peer1", "life": 1, "code": -9, "killed": True, "full": False},
        {"event": "published", "who": "hostile", "how": "bits flipped", "count": 3, "forged": ["f1", "f2"]},
        {"event": "finishing"},
    ]
    for who in ("peer0", "peer1"):
        events += [
            {"event": "finished", "who": who, "life": 2, "digest": "w", "others": {"x": "w"}},
            {"event": "end", "who": who, "life": 2, "code": 0, "killed": False, "full": False},
            {"event": "replayed", "who": who, "life": 2, "digest": "w", "held": dict(held)},
        ]
    return [{"at": float(at), **event} for at, event in enumerate(events)]


def wrong(events: list[Event], kills: int = 1) -> dict[str, list[str]]:
    from faulting.verdict import judge

    ordered = [{**event, "at": float(at)} for at, event in enumerate(events)]
    return {check.name: check.wrong for check in judge(ordered, 2, kills) if not check.kept}


def find(events: list[Event], name: str, who: str = "") -> Event:
    return next(e for e in events if e["event"] == name and e.get("who", "").startswith(who))


def test_a_run_in_which_nothing_went_wrong_is_judged_so() -> None:
    assert wrong(healthy()) == {}


def test_a_replica_or_replay_that_differs_is_seen() -> None:
    for name in ("finished", "replayed"):
        events = healthy()
        find(events, name)["digest"] = "v"
        assert list(wrong(events)) == ["same weights everywhere"]
    events = healthy()
    find(events, "finished")["others"] = {"peer1": "v"}
    assert wrong(events)["same weights everywhere"] == ["digests differ: w 5 times, v 1 times"]


def test_a_peer_that_has_not_finished_is_seen() -> None:
    events = healthy()
    events.remove(find(events, "finished", "peer1"))
    assert wrong(events) == {"same weights everywhere": ["1 of 2 peers have finished"]}


def test_a_missing_message_is_seen_unless_its_only_disk_lost_it() -> None:
    events = healthy()
    for who in ("peer0", "peer1"):
        del find(events, "replayed", who)["held"]["aa 1"]
    assert list(wrong(events)) == ["no message lost"]
    assert "lacks 1 messages, such as 1 of aa, which peer1 had" in wrong(events)["no message lost"][0]
    torn = {"event": "torn", "who": "peer1", "lost": [["aa", 1, "d1"]]}
    assert wrong([*events[:5], torn, *events[5:]]) == {}
    assert wrong([*events[:5], {"event": "lost", "who": "peer1"}, *events[5:]]) == {}
    # Lost by another's disk, or fetched again after the loss: it was there to be kept.
    assert list(wrong([*events[:5], {**torn, "who": "peer0"}, *events[5:]])) == ["no message lost"]
    again = {**events[3], "life": 2}
    assert list(wrong([*events[:5], torn, again, *events[5:]])) == ["no message lost"]


def test_a_message_in_one_log_only_is_seen() -> None:
    events = healthy()
    del find(events, "replayed", "peer1")["held"]["bb 0"]
    assert wrong(events) == {"same weights everywhere": ["logs hold different messages"]}


def test_an_altered_and_a_forged_message_are_seen() -> None:
    events = healthy()
    for who in ("peer0", "peer1"):
        find(events, "replayed", who)["held"]["aa 0"] = "f2"
    assert list(wrong(events)) == ["no message altered", "no forgery accepted"]
    assert wrong(events)["no forgery accepted"][0] == "peer0 accepted 1 forged messages"


def test_an_end_without_a_clear_error_is_seen() -> None:
    def ending(code: int, full: bool = False, **error: str) -> dict[str, list[str]]:
        end = {"event": "end", "who": "peer1", "life": 3, "code": code, "killed": False, "full": full}
        noted = [{"event": "error", "who": "peer1", "life": 3, **error}] if error else []
        events = healthy()
        return wrong([*events[:6], *noted, end, *events[6:]])

    assert ending(1) == {"clear errors only": ["peer1, life 3, ended with 1;  no error noted"]}
    assert "clear errors only" in ending(0), "nobody was asked to finish yet"
    assert "clear errors only" in ending(-11)
    assert "clear errors only" in ending(1, kind="LogDamagedError", text="damaged at byte 3")
    assert ending(1, kind="UnreachableError", text="nobody answers") == {}
    assert ending(1, full=True, kind="LogError", text="cannot append; free some space") == {}
    assert "clear errors only" in ending(1, full=False, kind="LogError", text="cannot append; free some space")


def test_growth_is_seen_and_messages_explain_some_of_it() -> None:
    def growing(bytes_a_second: float, messages_a_second: int) -> dict[str, list[str]]:
        from faulting.verdict import no_growth

        samples: list[Event] = [
            {
                "event": "memory",
                "who": "relay0",
                "life": 1,
                "at": float(second),
                "bytes": int(5e7 + bytes_a_second * second + (9e7 if second > 2 else 0)),
                "messages": messages_a_second * second,
            }
            for second in range(0, 1000, 2)
        ]
        check = no_growth(samples)
        assert check.fact == "1 long lives, the longest 988 s"
        return {check.name: check.wrong} if check.wrong else {}

    assert growing(0, 0) == {}
    assert growing(2e4, 16) == {}
    found = growing(2e4, 0)["memory does not grow"]
    assert found == ["relay0, life 1, grew by 19.7 MB in 988 s, with 0 messages more"]


def test_too_few_kills_and_idle_peers_are_seen() -> None:
    assert wrong(healthy(), kills=2) == {"enough went wrong": ["1 SIGKILLs of peers; expected at least 2"]}
    events = [e for e in healthy() if not (e["event"] == "step" and e["who"] == "peer1")]
    assert wrong(events) == {"enough went wrong": ["peer1 never published anything"]}


def test_a_rejoin_is_calm_if_nothing_else_fell_into_it() -> None:
    from faulting.rejoining import rejoins

    def life(who: str, life: int, start: float, seconds: float) -> list[Event]:
        return [
            {"event": "start", "who": who, "life": life, "at": start},
            {"event": "rejoined", "who": who, "life": life, "at": start + seconds, "seconds": seconds},
        ]

    parted = {"event": "action", "kind": "partition", "peers": [1], "relays": [0], "done": True}
    stopped = {"event": "action", "kind": "stop a process", "peers": [], "relays": [0], "done": True}
    events = [
        *life("peer1", 1, 0, 9.0),
        *life("peer1", 2, 100, 0.5),
        *life("peer1", 3, 200, 30.0),
        *life("peer10", 2, 210, 0.25),
        *life("peer1", 4, 300, 2.0),
        {"event": "start", "who": "peer1", "life": 5, "at": 400},
        {**parted, "at": 195, "seconds": 33},
        {**stopped, "at": 301, "seconds": 1},
    ]
    found = rejoins(events)
    assert (found.all, found.calm, found.unfinished) == ([0.5, 30.0, 0.25, 2.0], [0.5, 0.25], 1)
    assert found.summary()["all"] == {"count": 4, "p50": 2.0, "p99": 30.0, "max": 30.0}


# Histories and disks


def test_a_history_is_read_as_it_grows(tmp_path: Path) -> None:
    from faulting.history import History, Tails, resident

    first, second = History(tmp_path / "a.jsonl", who="a", life=1), History(tmp_path / "b.jsonl", who="b")
    tails = Tails(tmp_path)
    first.note("rejoined", round=7)
    assert tails.read()[0]["who"] == "a"
    assert tails.begun("a", 1)
    assert not tails.begun("a", 2)
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"event":"st')
        file.flush()
        assert len(tails.read()) == 1
        file.write('ep","round":9}\n')
    second.note("memory", bytes=resident())
    assert [e["event"] for e in tails.read()] == ["rejoined", "step", "memory"]
    assert tails.events[-1]["bytes"] > 1e6
    assert tails.summary() == "round 9"
    for open_file in (first, second, tails):
        open_file.close()


class Writer:
    """Somebody with a key in a run that has just begun."""

    def __init__(self, folder: Path) -> None:
        from faulting import ours

        ours.found(folder, lockstep=True)
        self.key, self.manifest = Key(b"\x02" * 32), log.read(folder / LOG_NAME).manifest
        self.introduction = Introduction(self.key.public, b"a label!")
        self.archive = Archive(self.manifest)
        self.archive.introduce(self.introduction)
        self.stream = Stream(self.introduction.peer(self.manifest.run_bytes))

    def publish(self, count: int) -> list[Signed]:
        messages = [Message(self.stream, number, number, 0.25, b"\x35") for number in range(count)]
        return [self.archive.publish(message, self.key) for message in messages]


@pytest.mark.parametrize("zeros", [False, True])
def test_tearing_a_log_says_what_was_lost(tmp_path: Path, zeros: bool) -> None:
    from faulting import disk, ours

    path, writer = tmp_path / LOG_NAME, Writer(tmp_path)
    signed = writer.publish(9)
    messages = [one.message for one in signed]
    torn_log = RunLog.resume(path, log.read(path))
    torn_log.append([writer.introduction], signed)
    torn_log.close()
    size = path.stat().st_size
    lost = disk.tear(path, 150, zeros)
    assert lost == [(m.stream.to_bytes().hex(), m.number, ours.message_digest(m)) for m in messages[7:]]
    assert log.read(path).messages == messages[:7]
    assert (path.stat().st_size == size) == zeros
    assert len(disk.tear(path, 10_000, zeros)) == 7
    assert log.read(path).messages == []


def test_a_small_disk_fills_up_and_keeps_what_was_there(tmp_path: Path) -> None:
    from faulting.disk import SmallDisk

    if not SmallDisk.possible():
        pytest.skip("mounting needs root")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "log").write_bytes(b"x" * 5000)
    small = SmallDisk(folder, 1)
    try:
        with (folder / "log").open("ab", buffering=0) as file:
            written = file.write(b"y" * 9000)
            with pytest.raises(OSError, match="No space left"):
                file.write(b"y")
    finally:
        small.grow()
    content = (folder / "log").read_bytes()
    assert content == b"x" * 5000 + b"y" * written
    assert len(content) == 12288
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# The network


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Any, socket.socket]]:
    """A network whose proxy runs, and a server where its only relay would be."""
    from faulting.network import network

    made = network("proxy", 2, 1, tmp_path / "control")
    code = "import json, sys; from faulting import proxy; proxy.run(*json.load(sys.stdin))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    with socket.create_server((made.node.relay(0), 5555)) as server, process.stdin as orders:
        orders.write(json.dumps([made.lines(), str(made.control)]).encode())
        orders.close()
        while not made.control.exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield made, server
    process.kill()
    process.wait()
    made.close()


@contextmanager
def line(proxied: tuple[Any, socket.socket]) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection of peer 1."""
    made, server = proxied
    with socket.create_connection((made.node.line(1, 0), 5555), timeout=10) as near:
        far, _ = server.accept()
        with far:
            far.settimeout(10)
            yield near, far


def test_the_proxy_passes_on_holds_and_corrupts(proxied: tuple[Any, socket.socket]) -> None:
    made, _ = proxied
    with line(proxied) as (near, far):
        near.sendall(b"there")
        assert far.recv(9) == b"there"
        far.sendall(b"and back")
        assert near.recv(9) == b"and back"
        made.part("held", 1, 0)
        made.part("unplugged", 1, 0)
        made.heal("held", 1, 0)
        made.tell("corrupt", 1, 0, 1)
        near.sendall(b"wait")
        far.settimeout(0.5)
        with pytest.raises(TimeoutError):
            far.recv(9)
        made.heal("unplugged", 1, 0)
        far.settimeout(10)
        assert sum((a ^ b).bit_count() for a, b in zip(far.recv(9), b"wait", strict=True)) == 1
        made.tell("delay", 1, 0, 0.3)
        before = time.monotonic()
        near.sendall(b"slow")
        made.tell("delay", 1, 0)
        near.sendall(b" but in order")
        assert far.recv(4) == b"slow"
        assert time.monotonic() - before >= 0.25
        assert far.recv(20) == b" but in order"


def test_the_proxy_resets_and_closes(proxied: tuple[Any, socket.socket]) -> None:
    made, _ = proxied
    with line(proxied) as (near, _):
        made.tell("reset", 1, 0)
        with pytest.raises(ConnectionResetError):
            near.recv(9)
    made.part("closed", 1, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((made.node.line(1, 0), 5555), timeout=10)
    made.heal("closed", 1, 0)
    with line(proxied) as (near, far):
        near.sendall(b"again")
        assert far.recv(9) == b"again"


def test_namespaces_are_links_that_can_be_unplugged_and_leave_nothing(tmp_path: Path) -> None:
    from faulting.network import CannotError, network

    try:
        net = network("namespaces", 2, 1, tmp_path / "control")
    except CannotError as error:
        pytest.skip(str(error))
    inside = ["ip", "netns", "exec", net.namespace(1), "ip", "route", "get", net.node.line(1, 0)]
    assert "dev eth0" in subprocess.run(inside, capture_output=True, text=True, check=True).stdout

    def carrier() -> str:
        words = ["ip", "-n", net.namespace(1), "link", "show", "eth0"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert "LOWER_UP" in carrier()
    net.part("unplugged", 1, 0)
    assert "NO-CARRIER" in carrier() or "LOWERLAYERDOWN" in carrier()
    net.heal("unplugged", 1, 0)
    assert "LOWER_UP" in carrier()
    net.narrow(1, 0.02)
    net.narrow(1, 0.02)
    net.widen(1)
    net.widen(1)
    net.close()
    assert not list(Path("/run/netns").glob(f"faults-{os.getpid()}-*"))


# The hostile member


def test_hostile_frames_are_what_they_are_called(tmp_path: Path) -> None:
    from faulting import hostile, ours
    from faulting.schedule import Frames

    random.seed(1)
    writer = Writer(tmp_path)
    heard = [signed.encode() for signed in writer.publish(20)]
    forger = hostile.Forger(writer.manifest, Key(b"\x03" * 32))
    made = {how: forger.frames(how, heard) for how in Frames}
    assert made[Frames.DUPLICATED] == heard
    assert made[Frames.REORDERED] == heard[::-1]
    assert all(bad == good[: len(bad)] != good for bad, good in zip(made[Frames.TRUNCATED], heard, strict=True))
    real = {ours.message_in(frame) for frame in heard}
    victim = Archive(writer.manifest)
    victim.introduce(writer.introduction)
    for how in set(Frames) - {Frames.DUPLICATED, Frames.REORDERED}:
        for frame in made[how]:
            accepted = False
            with suppress(MessageError):
                accepted = victim.accept(Signed.decode(frame))
            assert not accepted
    for how in (Frames.FLIPPED, Frames.FOREIGN, Frames.UNSIGNED, Frames.STOLEN):
        assert {ours.message_in(frame) for frame in made[how]} - real - {None}
    assert not any(victim.streams)


# The whole


def descendants(pid: int) -> Iterator[int]:
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its exit code that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ctrl_c_ends_a_run_and_all_its_processes(tmp_path: Path) -> None:
    words = [sys.executable, str(BENCHMARKS / "faults.py"), "--minutes", "5", "--peers", "3"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert "3 peers have begun" in first, process.communicate(timeout=60)
            forked = list(descendants(process.pid))
            # The zygote, two relays, proxy and hostile member, the peer that is never killed.
            assert len(forked) >= 6
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert errors == "stopped; no process is left\n"
    assert list(tmp_path.iterdir()) == []
    assert not list(Path("/run/netns").glob(f"faults-{process.pid}-*"))
    assert not any(map(is_running, forked))

"""Whether a run has kept what shared-seed promises, judged from what its processes noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from faulting.history import Event

SETTLED = 10.0
"""Seconds that a process may take to its working size."""

LONG = 30.0
"""Seconds after that over which growth is judged."""

SLACK = 8 << 20
PER_MESSAGE = 1 << 11
"""Bytes that a process may grow by, whatever it does, and for each message that it has come to hold."""

EXPECTED = {"UnreachableError"}
"""Errors that a peer may end with when it is cut off: whoever keeps it running starts it again."""

Key = tuple[str, int]
"""A message: its stream in hex, its number."""


@dataclass(frozen=True)
class Check:
    """One promise: what is wrong, nothing if it was kept, and a fact that shows that it was put to the test."""

    name: str
    wrong: list[str]
    fact: str

    @property
    def kept(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong


def named(events: Iterable[Event], *names: str) -> list[Event]:
    """The events of these names."""
    return [event for event in events if event["event"] in names]


def final_sets(events: Sequence[Event]) -> dict[str, dict[Key, str]]:
    """By member, the messages in its log at the end, with their digests."""
    out = {}
    for event in named(events, "replayed"):
        held = ((*key.split(), digest) for key, digest in event["held"].items())
        out[event["who"]] = {(stream, int(number)): digest for stream, number, digest in held}
    return out


def identical(events: Sequence[Event], peers: int) -> Check:
    """All replicas, and a fresh replay of each log, have the same weights."""
    finished, replayed = named(events, "finished"), named(events, "replayed")
    wrong = [
        f"{len(whos)} of {peers} peers {what}"
        for what, found in (("have finished", finished), ("have a log to replay", replayed))
        if len(whos := {e["who"] for e in found if e["who"].startswith("peer")}) < peers
    ]
    digests = Counter(e["digest"] for e in finished + replayed)
    digests.update(digest for e in finished for digest in e["others"].values())
    if len(digests) > 1:
        wrong.append("digests differ: " + ", ".join(f"{digest[:12]} {n} times" for digest, n in digests.items()))
    if len({frozenset(held.items()) for held in final_sets(events).values()}) > 1:
        wrong.append("logs hold different messages")
    return Check("same weights everywhere", wrong, f"{len(finished)} replicas, {len(replayed)} replays")


def kept_by(events: Sequence[Event]) -> dict[Key, str]:
    """Every message that some process had written to its log and that no disk lost since, with who had it."""
    held: dict[str, set[Key]] = {}
    for event in events:
        match event["event"]:
            case "step":
                mine = held.setdefault(event["who"], set())
                for stream, (start, stop) in event["kept"].items():
                    mine.update((stream, number) for number in range(start, stop))
            case "torn":
                mine = held.setdefault(event["who"], set())
                mine.difference_update((stream, number) for stream, number, _ in event["lost"])
            case "lost":
                held[event["who"]] = set()
    return {key: who for who, keys in held.items() for key in keys}


def nothing_lost(events: Sequence[Event]) -> Check:
    """What anybody has written down is in every log at the end, unless the disk that had it lost it."""
    kept, finals = kept_by(events), final_sets(events)
    wrong = []
    for who, final in finals.items():
        missing = [key for key in kept if key not in final]
        if missing:
            (stream, number), had = missing[0], kept[missing[0]]
            such = f"{number} of {stream[:8]}, which {had} had"
            wrong.append(f"{who} lacks {len(missing)} messages, such as {such}")
    return Check("no message lost", wrong, f"{len(kept)} messages in {len(finals)} logs")


def nothing_altered(events: Sequence[Event]) -> Check:
    """Messages arrived as they were published."""
    said = {(e["stream"], e["number"]): e["digest"] for e in named(events, "step")}
    wrong = []
    for who, final in final_sets(events).items():
        other = [key for key, digest in said.items() if final.get(key, digest) != digest]
        if other:
            wrong.append(f"{who} holds {len(other)} messages that were not published like that")
    return Check("no message altered", wrong, f"{len(said)} publications noted")


def nothing_forged(events: Sequence[Event]) -> Check:
    """Nobody took in what the hostile member made up."""
    published = named(events, "published")
    forged = {digest for event in published for digest in event["forged"]}
    wrong = []
    for who, final in final_sets(events).items():
        taken = forged & set(final.values())
        if taken:
            wrong.append(f"{who} accepted {len(taken)} forged messages")
    sent = sum(event["count"] for event in published)
    return Check("no forgery accepted", wrong, f"{sent} hostile frames, {len(forged)} of them forged messages")


def no_strange_end(events: Sequence[Event]) -> Check:
    """Processes ended by SIGKILL, at the end of the run, or with an error that says why."""
    errors = {(e["who"], e["life"]): e for e in named(events, "error")}
    wrong, full, cut_off = [], 0, 0
    finishing = min((e["at"] for e in named(events, "finishing")), default=float("inf"))
    for end in named(events, "end"):
        error = errors.get((end["who"], end["life"]))
        if end["killed"] or (end["code"] == 0 and end["at"] >= finishing):
            continue
        kind, text = (error["kind"], error["text"]) if error else ("", "no error noted")
        if end["full"] and kind == "LogError" and "free some space" in text:
            full += 1
        elif kind in EXPECTED:
            cut_off += 1
        else:
            wrong.append(f"{end['who']}, life {end['life']}, ended with {end['code']}; {kind} {text}")
    helpers = [f"tearing the log of {e['who']} failed" for e in named(events, "tore") if e["code"]]
    return Check("clear errors only", wrong + helpers, f"{full} full disks, {cut_off} cut off too long")


def no_growth(events: Sequence[Event]) -> Check:
    """No process that lived long grew by more than the messages it came to hold explain."""
    lives: dict[tuple[str, int], list[Event]] = {}
    for event in named(events, "memory"):
        lives.setdefault((event["who"], event["life"]), []).append(event)
    wrong, longest, judged = [], 0.0, 0
    for (who, life), samples in lives.items():
        samples = [s for s in samples if s["at"] >= samples[0]["at"] + SETTLED]
        if len(samples) < 6 or samples[-1]["at"] - samples[0]["at"] < LONG:
            continue
        judged += 1
        grown = median(s["bytes"] for s in samples[-3:]) - median(s["bytes"] for s in samples[:3])
        gained = samples[-1]["messages"] - samples[0]["messages"]
        seconds = samples[-1]["at"] - samples[0]["at"]
        longest = max(longest, seconds)
        if grown > SLACK + PER_MESSAGE * max(0, gained):
            wrong.append(
                f"{who}, life {life}, grew by {grown / 1e6:.1f} MB in {seconds:.0f} s, with {gained} messages more"
            )
    return Check("memory does not grow", wrong, f"{judged} long lives, the longest {longest:.0f} s")


def enough_kills(events: Sequence[Event], least: int) -> Check:
    """As many peers were killed as was asked for, and the run went on all the same."""
    kills = [e for e in named(events, "end") if e["killed"] and e["who"].startswith("peer")]
    wrong = [f"{len(kills)} SIGKILLs of peers; expected at least {least}"] if len(kills) < least else []
    publishers = {e["who"] for e in named(events, "step")}
    finished = {e["who"] for e in named(events, "finished")}
    idle = sorted(finished - publishers)
    if idle:
        wrong.append(f"{', '.join(idle)} never published anything")
    return Check("enough went wrong", wrong, f"{len(kills)} SIGKILLs of peers")


def judge(events: Sequence[Event], peers: int, kills: int) -> list[Check]:
    """All checks; ``events`` in order of time."""
    on_events: Sequence[Callable[[Sequence[Event]], Check]] = (
        nothing_lost,
        nothing_altered,
        nothing_forged,
        no_strange_end,
        no_growth,
    )
    return [identical(events, peers), *(check(events) for check in on_events), enough_kills(events, kills)]

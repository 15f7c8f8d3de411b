"""What is noted of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulation.counts import NAMES, Counts
from simulation.network import Process
from simulation.verdict import broken
from simulation.world import World


@dataclass(frozen=True)
class Result:
    """Of one run; frames and bytes are by what they are for, and those of a peer are means.

    ``whole`` nodes were no stand-ins; all that is counted is of these. ``busiest`` is the address that has sent
    most, with its bytes a second. ``equal`` are the seconds from the last publication until all sets were equal,
    ``None`` if they never were, ``ended`` those until all had left; ``broken`` says what else is wrong.
    """

    setting: str
    shape: str
    peers: int
    relays: int
    whole: int
    seconds: float
    messages: int
    streams: int
    sent_frames: dict[str, float]
    sent_bytes: dict[str, float]
    received_frames: dict[str, float]
    received_bytes: dict[str, float]
    relay_sent_bytes: dict[str, float]
    busiest: int
    busiest_rate: float
    equal: float | None
    ended: float
    late: int
    lost: int
    events: int
    digest: str
    broken: list[str]

    @property
    def received(self) -> float:
        """Bytes that a peer received, whatever for."""
        return sum(self.received_bytes.values())

    @property
    def rate(self) -> float:
        """Bytes a second that a peer received."""
        return self.received / self.seconds

    @property
    def frame_rate(self) -> float:
        """Frames a second that a peer received."""
        return sum(self.received_frames.values()) / self.seconds


def _mean(counts: Iterable[Counts], among: int) -> tuple[dict[str, float], dict[str, float]]:
    """Frames and bytes of several processes, for each of so many."""
    total = Counts()
    for one in counts:
        total.gather(one)
    frames = {name: count / max(1, among) for name, count in zip(NAMES, total.frames, strict=True)}
    return frames, {name: count / max(1, among) for name, count in zip(NAMES, total.bytes, strict=True)}


def _busiest(processes: Iterable[Process], seconds: float) -> tuple[int, float]:
    sent: dict[int, int] = {}
    for process in processes:
        sent[process.address] = sent.get(process.address, 0) + sum(process.sent.bytes)
    address = max(sent, key=lambda address: sent[address])
    return address, sent[address] / seconds


def result(setting: str, world: World) -> Result:
    """Read it off a world that has run."""
    peers, seconds = world.topology.peers, world.calendar.now / 1000
    whole = [process for process in world.processes if not process.deaf]
    relays = [process for process in whole if process.address >= peers]
    others = [process for process in whole if process.address < peers]
    among = len({process.address for process in others})
    sent_frames, sent_bytes = _mean((process.sent for process in others), among)
    received_frames, received_bytes = _mean((process.received for process in others), among)
    _, relay_bytes = _mean((process.sent for process in relays), len(world.whole) - among)
    busiest, rate = _busiest(whole, seconds)
    wrong = broken(world)
    since = world.equal_since
    return Result(
        setting,
        world.scenario.shape,
        peers,
        world.topology.nodes - peers,
        len(world.whole),
        seconds,
        sum(map(len, world.published.values())),
        len(world.published),
        sent_frames,
        sent_bytes,
        received_frames,
        received_bytes,
        relay_bytes,
        busiest,
        rate,
        None if since is None else max(0, since - world.last_publication) / 1000,
        seconds - world.last_publication / 1000,
        sum(peer.late for peer in world.survivors),
        world.network.lost,
        world.calendar.events,
        world.end_digest(),
        wrong,
    )

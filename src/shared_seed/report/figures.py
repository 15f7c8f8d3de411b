"""The figures of a run, as plain data; nothing here draws."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared_seed import codec
from shared_seed.report.costs import Cost, Shape, alternatives
from shared_seed.report.material import Evaluation, Material, Part, number
from shared_seed.report.timeline import Timeline, trace


@dataclass(frozen=True)
class Curve:
    """The loss over the run: by round, with what had passed at its end.

    ``loss`` is the mean over the peers whose metrics are here, ``smooth`` its running mean over ``window`` rounds;
    ``seconds`` of training of the folder's own peer; ``received`` bytes by the peers whose metrics are here.
    """

    rounds: list[int]
    loss: list[float]
    smooth: list[float]
    window: int
    seconds: list[float]
    received: list[float]

    def at(self, round_: int, what: Sequence[float]) -> float:
        """What had passed after so many rounds."""
        index = bisect_right(self.rounds, round_ - 1) - 1
        return what[index] if index >= 0 else 0.0


@dataclass(frozen=True)
class Spread:
    """How some gradients are distributed: quantiles of their values, and how many there are of what kind.

    ``quantiles`` are the 5th, 25th, 50th, 75th and 95th in a hundred; empty without gradients.
    """

    count: int
    rms: float
    positive: int
    zero: int
    saturated: int
    abstained: int
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """How many gradients are nearest to each multiple of ``width`` from ``-bins`` to ``bins`` of them; those in
    the middle go half to either side; ``below`` and ``above`` are beyond.
    """

    width: float
    bins: int
    counts: list[float]
    below: float
    above: float


@dataclass(frozen=True)
class Traffic:
    """What one peer's sockets carried until its last step, as its own metrics say."""

    name: str
    sent: int
    received: int


@dataclass(frozen=True)
class Figures:
    """All that a report shows; ``None`` and NaN are what is not known, ``unknown`` says so in sentences."""

    title: str
    model: str
    run: str
    owner: str
    parameters: int
    tensors: int
    rounds: int
    done: int
    peers: int
    streams: int
    messages: int
    gradients: int
    finished: bool
    digest: str
    replicas: dict[str, str]
    seconds: float
    received: int | None
    received_by: int
    log_bytes: int
    scores: list[tuple[str, str, str]]
    evaluations: list[Evaluation]
    curve: Curve
    temperature: float
    spread: Spread
    histogram: Histogram
    timeline: Timeline
    traffic: list[Traffic]
    costs: list[Cost]
    signed: bool
    unknown: list[str]

    @property
    def restarts(self) -> int:
        """Processes beyond the first of each peer."""
        return sum(max(0, len(lane.lives) - 1) for lane in self.timeline.lanes)


def compute(material: Material) -> Figures:
    """Compute all figures of a run."""
    contents, archive, summary = material.contents, material.archive, material.summary
    manifest = contents.manifest
    parts = [part for part in material.parts if part.processes]
    curve = loss_curve(parts)
    times = list(zip(curve.rounds, curve.seconds, strict=True))
    lanes = trace(material, times)
    counting = sum((lane.codes for lane in lanes.lanes if not lane.out), Counter[int]())
    recipe = manifest.recipe or {}
    received = _received(material, parts)
    scores = summary.scores() if summary else []
    return Figures(
        title=str(recipe.get("title") or manifest.model or "a run"),
        model=manifest.model,
        run=manifest.run,
        owner=manifest.owner,
        parameters=sum(math.prod(tensor.shape) for tensor in manifest.tensors),
        tensors=len(manifest.tensors),
        rounds=manifest.rounds,
        done=lanes.last + 1 if lanes.lanes else 0,
        peers=len(lanes.lanes),
        streams=len({*archive.streams, *archive.forks}),
        messages=len(archive),
        gradients=sum(lane.gradients for lane in lanes.lanes),
        finished=contents.finished,
        digest=contents.digest[1].hex() if contents.finished and contents.digest else "",
        replicas=summary.replicas if summary else {},
        seconds=summary.seconds if summary else curve.seconds[-1] if curve.seconds else math.nan,
        received=received.everything if received else None,
        received_by=len(parts),
        log_bytes=contents.size,
        scores=scores,
        evaluations=_evaluations(material, lanes),
        curve=curve,
        temperature=_temperature(recipe),
        spread=spread(counting, manifest.scale_exponent),
        histogram=histogram(counting, manifest.scale_exponent),
        timeline=lanes,
        traffic=[Traffic(part.name, part.sent, part.received) for part in parts],
        costs=_costs(material, lanes, received, len(parts)),
        signed=bool(archive.owner),
        unknown=_unknown(material, parts),
    )


def loss_curve(parts: Sequence[Part]) -> Curve:
    """The curve that the metrics of some peers give, the folder's own peer first."""
    losses: dict[int, list[float]] = {}
    for part in parts:
        own = {line.round: line.loss for line in part.lines}
        for round_, its in own.items():
            losses.setdefault(round_, []).append(its)
    rounds = sorted(losses)
    loss = [_mean([each for each in losses[at] if math.isfinite(each)]) for at in rounds]
    window = max(1, len(rounds) // 20)
    recent = [loss[max(0, end - window) : end] for end in range(1, len(loss) + 1)]
    smooth = [_mean([each for each in some if math.isfinite(each)]) for some in recent]
    passed = _passed(parts[0], "seconds") if parts else {}
    received = [0.0] * len(rounds)
    for part in parts:
        received = [a + b for a, b in zip(received, _held(_passed(part, "received"), rounds), strict=True)]
    return Curve(rounds, loss, smooth, window, _held(passed, rounds), received)


def _passed(part: Part, what: str) -> dict[int, float]:
    """By round, a count that begins anew with every process, all processes together."""
    before = 0.0
    found: dict[int, float] = {}
    for process in part.processes:
        found |= {line.round: before + getattr(line, what) for line in process}
        before += getattr(process[-1], what)
    return found


def _held(found: dict[int, float], rounds: Sequence[int]) -> list[float]:
    """For each round the last that is known by then, 0 before there is any."""
    held, last = [], 0.0
    for round_ in rounds:
        last = found.get(round_, last)
        held.append(last)
    return held


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def spread(codes: Counter[int], scale_exponent: int) -> Spread:
    """How the gradients that codes stand for are distributed."""
    values = _values(codes, scale_exponent)
    count = sum(n for _, n in values)
    largest = math.ldexp(codec.LARGEST, scale_exponent)
    quantiles = tuple(_quantile(values, count, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)) if count else ()
    return Spread(
        count=count,
        rms=math.sqrt(math.fsum(n * value * value for value, n in values) / count) if count else math.nan,
        positive=sum(n for value, n in values if value > 0),
        zero=sum(n for value, n in values if value == 0),
        saturated=sum(n for value, n in values if abs(value) == largest),
        abstained=sum(n for code, n in codes.items() if codec.is_abstention(code)),
        quantiles=quantiles,
    )


def _values(codes: Counter[int], scale_exponent: int) -> list[tuple[float, int]]:
    """The gradients that are finite and how often each occurs, in order."""
    finite = (
        (codec.decode(code, scale_exponent), n) for code, n in codes.items() if not codec.is_abstention(code)
    )
    return sorted(finite)


def _quantile(values: Sequence[tuple[float, int]], count: int, share: float) -> float:
    """The smallest value that at least this share of all do not exceed."""
    reached, wanted = 0, max(1, math.ceil(share * count))
    for value, n in values:
        reached += n
        if reached >= wanted:
            return value
    return values[-1][0]


def histogram(codes: Counter[int], scale_exponent: int, bins: int = 16) -> Histogram:
    """A histogram whose limit is the power of two that 99 % of the gradients do not exceed.

    Codes are eight to a factor of two, so with ``bins`` 16 the outer half has one code a bin: the bars show the
    gradients, not the rounding.
    """
    values = _values(codes, scale_exponent)
    count = sum(n for _, n in values)
    sizes = sorted((abs(value), n) for value, n in values)
    typical = _quantile(sizes, count, 0.99) if count else 1.0
    width = math.ldexp(1.0, math.ceil(math.log2(typical)) if typical else 0) / bins
    counts, beyond = [0.0] * (2 * bins + 1), [0.0, 0.0]
    for value, n in values:
        place = value / width
        for whole in (math.floor(place + 0.5), math.ceil(place - 0.5)):  # they differ in the middle alone
            if abs(whole) <= bins:
                counts[whole + bins] += n / 2
            else:
                beyond[whole > 0] += n / 2
    return Histogram(width, bins, counts, *beyond)


def _evaluations(material: Material, lanes: Timeline) -> list[Evaluation]:
    """Validations while training; without any, the tests before and after it, which the result tells of."""
    summary = material.summary
    if material.evaluations or summary is None:
        return material.evaluations
    ends = [(at, s) for at, s in ((0, summary.before), (lanes.last + 1, summary.after)) if s is not None]
    return [Evaluation(at, s.accuracy, s.loss, s.rows) for at, s in ends if s.accuracy is not None]


@dataclass(frozen=True)
class _Received:
    """Bytes that the sockets of all peers whose metrics are here received; of gradient messages where known."""

    everything: int
    gradients: int | None


def _received(material: Material, parts: Sequence[Part]) -> _Received | None:
    """A result is of its own peer and last process, or of all peers of this machine; it counts to the very end.

    It is taken where it is not less than what all processes of all peers had noted by their last steps.
    """
    summary, noted = material.summary, sum(part.received for part in parts)
    if not parts:
        return None
    if summary is not None and summary.received >= noted:
        return _Received(summary.received, summary.gradient_received)
    return _Received(noted, None)


def _costs(material: Material, lanes: Timeline, received: _Received | None, by: int) -> list[Cost]:
    """What was received here, measured where all peers' metrics are at hand, and the alternatives."""
    company = {round_: n for round_, n in lanes.present.items() if n > 1}
    peers = len(lanes.lanes)
    if not company:
        return []
    signature = 64 if material.archive.owner else 0
    copies = sum(
        (len(message.encode()) + signature) * (lanes.present[message.round] - 1) for message in material.archive
    )
    steps, ours = sum(company.values()), list[Cost]()
    if received and by >= peers:
        how = f"measured at the sockets of {by} peers, heartbeats, greetings and catching up included"
        ours.append(Cost("here, everything", received.everything / steps, received.everything, how, True))
    if received and received.gradients is not None and by >= peers:
        how = f"measured at the sockets of {by} peers, gradient messages alone"
        ours.append(Cost("here, gradients", received.gradients / steps, received.gradients, how, True))
    else:
        how = "computed from the log: every gradient message, signed, once to each other peer of its round"
        ours.append(Cost("here, gradients", copies / steps, copies, how))
    return [*ours, *alternatives(material.contents.manifest, Shape(steps, peers))]


def _temperature(recipe: dict[str, Any]) -> float:
    """Of the loss that is trained on first; 1 where a recipe, maybe a stranger's, says no number above 0."""
    task = recipe.get("task")
    given = number(task.get("temperature")) if isinstance(task, dict) else math.nan
    return given if given > 0 else 1.0


def _unknown(material: Material, parts: Sequence[Part]) -> list[str]:
    """What this material does not tell, in sentences."""
    said = []
    contents, lanes = material.contents, {stream.peer for stream in material.archive.streams}
    if contents.torn:
        said.append(f"The last {contents.torn:,} bytes of the log were cut off by a crash and are left out.")
    if not contents.finished:
        said.append("The log does not end with a digest: the run is under way, or was stopped.")
    if not material.path.is_dir():
        said.append("This is a bare log: losses, times, accuracy and bytes at the sockets are not in it.")
    elif not parts:
        said.append("There are no metrics in the folder: losses, times and bytes at the sockets are not known.")
    elif len(parts) < len(lanes):
        said.append(
            f"Losses and bytes are those of {len(parts)} of {len(lanes)} peers: others' metrics are not here."
        )
    if material.path.is_dir() and not material.evaluations and material.summary is None:
        said.append("No test on held-out rows has been noted, so accuracy is not known.")
    bad = sum(part.unreadable for part in material.parts)
    if bad:
        said.append(f"{bad:,} lines of metrics are not as expected and are left out.")
    return said

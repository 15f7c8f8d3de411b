"""The page: one HTML file that loads nothing from anywhere and runs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from shared_seed import __version__
from shared_seed.report import charts, units
from shared_seed.report.figures import Figures, Spread, spread
from shared_seed.report.timeline import Lane, Timeline

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content security policy: no scripts, no images, no frames, no connections."""

MOST_MARKS = 400
"""Marks on one lane; those nearer to each other than a lane's 400th part are one."""

MOST_ROWS = 1000
"""Peers that tables list."""


@dataclass(frozen=True)
class Mark:
    """Something on a lane: ``left`` and ``width`` in hundredths of the lane."""

    kind: str
    left: float
    width: float
    hint: str


@dataclass(frozen=True)
class Row:
    """A lane as it is drawn; ``notes`` say in words what its marks show."""

    lane: Lane
    marks: list[Mark]
    notes: list[str]


def render(found: Figures, scale_exponent: int) -> str:
    """The HTML of a report.

    Args:
        found: what to show.
        scale_exponent: of the run's codes.
    """
    folder = resources.files("shared_seed.report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "bytes": units.of_bytes,
        "seconds": units.of_seconds,
        "number": units.of_number,
        "factor": units.of_factor,
        "whole": "{:,.0f}".format,
    }
    costs, decades = _costs(found)
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        figures=found,
        style=Markup(folder.joinpath("style.css").read_text(encoding="utf-8")),
        policy=POLICY,
        version=__version__,
        learning=_learning(found),
        histogram=_histogram(found),
        rows=[_row(lane, found.timeline) for lane in found.timeline.shown],
        present=_present(found.timeline),
        ruler=_ruler(found.timeline),
        spreads=_spreads(found.timeline.shown, scale_exponent),
        most_traffic=max([max(t.sent, t.received) for t in found.traffic], default=0) or 1,
        most_published=max([lane.published for lane in found.timeline.shown], default=0) or 1,
        costs=costs,
        decades=decades,
        most_rows=MOST_ROWS,
        sampled=_sampled(found),
    )


def _learning(found: Figures) -> list[tuple[str, Markup]]:
    """The curve over steps, time and bytes, as far as these are known."""
    curve = found.curve
    if not curve.rounds:
        return []
    ways = [("steps", True), ("time", curve.seconds[-1] > 0), ("bytes", curve.received[-1] > 0)]
    first, last = (units.of_number(curve.smooth[i]) for i in (min(curve.window, len(curve.smooth)) - 1, -1))
    told = f"The mean loss of {curve.window} rounds goes from {first} to {last} in {len(curve.rounds):,} rounds."
    if found.temperature != 1:
        begun = units.of_number(found.temperature)
        told += f" It is trained on at temperature {begun} at first, and at 1 in the end, as tests are."
    if found.evaluations:
        told += f" Accuracy goes from {found.evaluations[0].accuracy:.1%} to {found.evaluations[-1].accuracy:.1%}."
    return [
        (
            what,
            charts.both(
                f"learning-{what}",
                f"Loss{' and accuracy' if found.evaluations else ''} over {what}",
                told,
                partial(charts.learning, curve, found.evaluations, what),
            ),
        )
        for what, known in ways
        if known
    ]


def _histogram(found: Figures) -> Markup | None:
    spread_ = found.spread
    if not spread_.count:
        return None
    told = (
        f"{spread_.count:,} gradients, root mean square {spread_.rms:.3g}, median {spread_.quantiles[2]:g}, "
        f"{spread_.positive / spread_.count:.0%} positive."
    )
    title = "How many projected gradients have which value"
    return charts.both("gradients", title, told, partial(charts.bars, found.histogram))


def _place(time: Timeline, first: int, last: int) -> tuple[float, float]:
    """Left edge and width of some rounds, in hundredths of a lane."""
    total = time.last - time.first + 1
    return 100 * (first - time.first) / total, 100 * (last - first + 1) / total


def _left(time: Timeline, round_: int) -> float:
    """Where a round begins."""
    return _place(time, round_, round_)[0]


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans of left edge and width, of which those that nearly touch are one."""
    merged: list[tuple[float, float]] = []
    for left, width in sorted(spans):
        if merged and left - sum(merged[-1]) < 100 / MOST_MARKS:
            before = merged.pop()
            left, width = before[0], max(sum(before), left + width) - before[0]
        merged.append((left, width))
    return merged


def _row(lane: Lane, time: Timeline) -> Row:
    marks: list[Mark] = []
    for number, life in enumerate(lane.lives, 1):
        name = f"process {number}: rounds {life.first + 1:,} to {life.last + 1:,}"
        marks.append(Mark("out" if lane.out else "life", *_place(time, life.first, life.last), name))
        pauses = _merged([_place(time, *pause) for pause in life.pauses])
        marks += [Mark("pause", *place, "rounds without a message of this peer") for place in pauses]
        silent = _merged([_place(time, round_, round_) for round_ in life.abstained])
        marks += [Mark("abstained", *place, "abstained: its losses were not finite") for place in silent]
        if number > 1:
            marks.append(Mark("restart", _left(time, life.first), 0.0, f"process {number} begins"))
    marks = marks[:MOST_MARKS]
    notes = []
    if lane.lives and lane.first > time.first:
        notes.append(f"joined in round {lane.first + 1:,}")
        marks.append(Mark("join", _left(time, lane.first), 0.0, notes[-1]))
    if len(lane.lives) > 1:
        notes.append(_times("restarted", len(lane.lives) - 1))
    if lane.forked is not None:
        notes.append(f"cut off in round {lane.forked + 1:,}: it said two different things")
        marks.append(Mark("fork", _left(time, lane.forked), 0.0, notes[-1]))
    elif lane.lives and lane.last < time.last:
        notes.append(f"nothing after round {lane.last + 1:,}")
        marks.append(Mark("end", _left(time, lane.last + 1), 0.0, notes[-1]))
    notes += [lane.out] if lane.out else []
    notes += [_times("abstained", lane.abstained)] if lane.abstained else []
    notes += [_times("missed a deadline", lane.late)] if lane.late else []
    return Row(lane, marks, notes)


def _times(what: str, count: int) -> str:
    return what if count == 1 else f"{what} {count:,} times"


def _present(time: Timeline, columns: int = 120) -> list[tuple[float, float, str]]:
    """How many streams there were, as columns of (height in hundredths of the most, number, where)."""
    total = time.last - time.first + 1
    columns = min(columns, total)
    if not time.present:
        return []
    sums = [0] * columns
    for round_, count in time.present.items():
        sums[(round_ - time.first) * columns // total] += count
    most = max(time.present.values())
    out = []
    for index, messages in enumerate(sums):
        first, end = (-(-i * total // columns) for i in (index, index + 1))
        mean = messages / max(1, end - first)
        where = f"round {time.first + first + 1:,}: {mean:.3g} peers"
        out.append((100 * mean / most, mean, where))
    return out


def _ruler(time: Timeline) -> list[tuple[float, str, str]]:
    """Where on the lanes which round ends, and at which time as far as that is known."""
    total = time.last - time.first + 1
    seconds = dict(time.times)
    known = sorted(seconds)
    out = []
    for tick in units.ticks(0, total, 5):
        # The mark for n rounds is at the end of the n-th.
        round_ = time.first + round(tick) - 1
        near = [each for each in known if each <= round_]
        at = units.of_seconds(seconds[near[-1]]) if near else ""
        out.append((100 * tick / total, f"{time.first + round(tick):,}", at))
    return out


def _spreads(lanes: Sequence[Lane], scale_exponent: int) -> list[tuple[Lane, Spread, dict[str, float]]]:
    """Each peer's gradients, and where the marks of its box are in hundredths of the common width."""
    found = [(lane, spread(lane.codes, scale_exponent)) for lane in lanes]
    sizes = [abs(q) for _, each in found for q in each.quantiles]
    limit = max(sizes, default=0.0) or 1.0
    out = []
    for lane, each in found:
        if each.count:
            places = [50 + 48 * q / limit for q in each.quantiles]
            names = ("low", "box", "median", "box_end", "high")
            out.append((lane, each, dict(zip(names, places, strict=True))))
    return out


def _costs(found: Figures) -> tuple[list[dict[str, Any]], list[tuple[float, str]]]:
    """The ways of working with lengths of bars on a scale of powers of ten, with every third named."""
    totals = [cost.total for cost in found.costs if cost.total > 0]
    if not totals:
        return [], []
    low = math.floor(math.log10(min(totals))) - 0.5
    high = max(math.log10(max(totals)), low + 1)
    ours = found.costs[0].total
    bars = [
        {
            "cost": cost,
            "width": 100 * (math.log10(cost.total) - low) / (high - low) if cost.total > 0 else 0.0,
            "ours": cost.name.startswith("here"),
            "factor": cost.total / ours if ours else math.nan,
        }
        for cost in found.costs
    ]
    powers = range(math.ceil(low), math.floor(high) + 1)
    named = [(power, units.of_bytes(10.0**power) if power % 3 == 0 else "") for power in powers]
    return bars, [(100 * (power - low) / (high - low), name) for power, name in named]


def _sampled(found: Figures, most: int = 24) -> list[dict[str, Any]]:
    """Rows of the table beside the curve: some rounds at even distances, the first and the last."""
    curve = found.curve
    count = len(curve.rounds)
    chosen = sorted({round(i * (count - 1) / (most - 1)) for i in range(most)}) if count else []
    return [
        {
            "round": curve.rounds[i] + 1,
            "loss": curve.loss[i],
            "smooth": curve.smooth[i],
            "seconds": curve.seconds[i],
            "received": curve.received[i],
        }
        for i in chosen
    ]

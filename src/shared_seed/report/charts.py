"""Line chart and histogram as inline SVG: text is escaped, colours come from the page's style sheet.

Each is drawn twice, for wide and for narrow screens, so that its text has the same size on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from shared_seed.report import units
from shared_seed.report.figures import Curve, Histogram
from shared_seed.report.material import Evaluation

WIDE, NARROW = 720, 320
"""Widths in CSS pixels of the two drawings of a chart."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """What a chart is drawn over: a name, numbers and how they are written."""

    name: str
    high: float
    ticks: Callable[[int], list[float]]
    written: Callable[[float], str]


def both(name: str, title: str, told: str, draw: Callable[[int], tuple[int, Markup]]) -> Markup:
    """A chart in both widths.

    Args:
        name: begins the identifiers of its parts.
        title: what it is.
        told: what it shows, for those who cannot see it.
        draw: gives height and content at a width.
    """
    out = Markup("")
    for kind, width in (("wide", WIDE), ("narrow", NARROW)):
        height, content = draw(width)
        label = f"{name}-{kind}"
        out += Markup(
            '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
            '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>{}</svg>\n'
        ).format(kind, width, height, label, label, label, title, label, told, content)
    return out


def element(name: str, text: object = None, **attributes: Any) -> Markup:
    """An SVG element; ``class_`` stands for ``class``, ``stroke_width`` for ``stroke-width``."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
    )
    inside = "" if text is None else text
    return Markup("<{}{}>{}</{}>").format(Markup(name), written, inside, Markup(name))


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def path(points: Iterable[tuple[float, float]], **attributes: Any) -> Markup:
    """A line through points, broken where one is not finite."""
    words, pen = [], "M"
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        words.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return element("path", d="".join(words), **attributes)


def thinned(points: Points, most: int) -> list[tuple[float, float]]:
    """About as many points as ``most``, which keep the lowest and the highest of what they stand for."""
    finite = [point for point in points if math.isfinite(point[1])]
    size = math.ceil(2 * len(finite) / most)
    if size <= 2:
        return list(points)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(finite), size):
        some = finite[start : start + size]
        kept += sorted({min(some, key=lambda p: p[1]), max(some, key=lambda p: p[1])})
    return kept


def axis_of(curve: Curve, what: str) -> tuple[Axis, list[float]]:
    """The axis and the positions of a curve's rounds over ``steps``, ``time`` or ``bytes``."""
    if what == "time":
        high = curve.seconds[-1]
        return Axis("time in training", high, lambda n: units.time_ticks(high, n), units.of_seconds), curve.seconds
    if what == "bytes":
        high = curve.received[-1]
        return Axis("received", high, lambda n: units.ticks(0, high, n), units.of_bytes), curve.received
    high = float(curve.rounds[-1] + 1)
    rounds = [float(round_ + 1) for round_ in curve.rounds]
    return Axis("rounds", high, lambda n: units.ticks(0, high, n), "{:,.0f}".format), rounds


def learning(curve: Curve, evaluations: Sequence[Evaluation], what: str, width: int) -> tuple[int, Markup]:
    """Loss, and below it accuracy where it was tested, over ``what`` of :func:`axis_of`."""
    axis, places = axis_of(curve, what)
    left, right = 44, width - 14
    tested = [(curve.at(e.round, places), e.accuracy) for e in evaluations]
    high = max(axis.high, *(x for x, _ in tested), 1e-9) if tested else max(axis.high, 1e-9)
    loss_bottom = 210
    bottom = loss_bottom + (130 if tested else 0)

    def across(x: float) -> float:
        return left + (right - left) * x / high

    out = Markup("")
    for tick in axis.ticks(width // 110):
        x = across(tick)
        anchor = "middle" if x < right - 20 else "end"
        out += element("line", class_="grid", x1=x, x2=x, y1=24, y2=bottom)
        out += element("text", axis.written(tick), class_="tick", x=x, y=bottom + 17, text_anchor=anchor)
    out += element("text", axis.name, class_="name", x=right, y=bottom + 35, text_anchor="end")
    out += _losses(curve, list(map(across, places)), (left, right, 24, loss_bottom))
    if tested:
        out += _accuracies([(across(x), y) for x, y in tested], (left, right, loss_bottom + 38, bottom))
    return bottom + 42, out


Box = tuple[float, float, float, float]
"""Left, right, top and bottom of a panel."""


def _losses(curve: Curve, across: Sequence[float], box: Box) -> Markup:
    left, _, top, bottom = box
    finite = sorted(each for each in curve.loss if math.isfinite(each))
    if not finite:
        return element("text", "no finite loss was noted", class_="tick", x=left, y=top + 20)
    # One wild batch should not flatten all others: beyond twice the spread of the middle, lines leave the panel.
    middle = [finite[int(share * (len(finite) - 1))] for share in (0.02, 0.98)]
    room = 0.15 * (middle[1] - middle[0]) or 0.05 * abs(middle[0]) or 1.0
    low, high = max(finite[0], middle[0] - room), min(finite[-1], middle[1] + room)
    if not high > low:
        low, high = low - room, high + room

    def down(y: float) -> float:
        return min(bottom, max(top, bottom - (bottom - top) * (y - low) / (high - low)))

    out = _levels(units.ticks(low, high, 4), down, box, units.of_number)
    drawn = thinned(list(zip(across, curve.loss, strict=True)), 700)
    out += path(((x, down(y) if math.isfinite(y) else y) for x, y in drawn), class_="pale")
    smooth = zip(across, curve.smooth, strict=True)
    out += path(((x, down(y) if math.isfinite(y) else y) for x, y in smooth), class_="line a")
    return out + element("text", "loss", class_="name", x=left - 40, y=14)


def _accuracies(tested: Points, box: Box) -> Markup:
    left, right, top, bottom = box
    values = [y for _, y in tested]
    room = max(0.02, 0.35 * (max(values) - min(values)))
    low, high = max(0.0, min(values) - room), min(1.0, max(values) + room)

    def down(y: float) -> float:
        return bottom - (bottom - top) * (y - low) / (high - low)

    out = _levels(units.ticks(low, high, 3), down, box, "{:.0%}".format if high - low > 0.03 else "{:.1%}".format)
    # Between two tests nothing was measured.
    out += path(((x, down(y)) for x, y in tested), class_="line c dashed")
    for index, (x, y) in enumerate(tested):
        out += element("circle", element("title", f"{y:.1%}"), class_="dot c", cx=x, cy=down(y), r=4.5)
        if index in (0, len(tested) - 1):
            anchor, at = ("start", x + 2) if index == 0 else ("end", min(x, right))
            near = tested[min(1, len(tested) - 1) if index == 0 else index - 1][1]
            below = 20 if near > y else -10  # on the side where the line is not
            out += element("text", f"{y:.1%}", class_="value", x=at, y=down(y) + below, text_anchor=anchor)
    return out + element("text", "accuracy on held-out rows", class_="name", x=left - 40, y=top - 12)


def _levels(
    levels: Sequence[float], down: Callable[[float], float], box: Box, written: Callable[[float], str]
) -> Markup:
    left, right, _, _ = box
    out = Markup("")
    for level in levels:
        y = down(level)
        out += element("line", class_="grid", x1=left, x2=right, y1=y, y2=y)
        out += element("text", written(level), class_="tick", x=left - 6, y=y + 4, text_anchor="end")
    return out


def bars(found: Histogram, width: int) -> tuple[int, Markup]:
    """The histogram, with what is beyond its limits at its ends."""
    left, right, top, bottom = 10, width - 10, 14, 190
    counts = [found.below, *found.counts, found.above]
    step = (right - left) / len(counts)
    most = max(counts) or 1.0
    out = Markup("")
    for place, count in enumerate(counts):
        end = place in (0, len(counts) - 1)
        middle = (place - 1 - found.bins) * found.width
        limit = found.bins * found.width
        where = (
            f"{'below' if place == 0 else 'above'} {math.copysign(limit, middle):g}"
            if end
            else f"about {middle:g}"
        )
        height = (bottom - top) * count / most
        hint = element("title", f"{where}: {count:,.0f}")
        if count:
            out += element(
                "rect",
                hint,
                class_="fill b" if end else "fill a",
                x=left + place * step + 0.5,
                y=bottom - max(1.0, height),
                width=max(1.0, step - 1),
                height=max(1.0, height),
            )
    out += element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom)
    for share in (-1, -0.5, 0, 0.5, 1):
        x = left + (1.5 + found.bins * (1 + share)) * step
        value = share * found.bins * found.width
        out += element("line", class_="axis", x1=x, x2=x, y1=bottom, y2=bottom + 5)
        out += element("text", f"{value:g}", class_="tick", x=x, y=bottom + 19, text_anchor="middle")
    return bottom + 28, out

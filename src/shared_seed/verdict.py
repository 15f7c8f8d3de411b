"""What audited bytes say of those who published them: two statistics, each with its verdict for a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from statistics import NormalDist

from shared_seed import codec
from shared_seed.messages import Stream

TOLERANCE = 0.4
"""How far from its byte an honest gradient may come out elsewhere, in root mean squares of all gradients."""

HONEST_RATE = 0.02
"""The share of an honest peer's bytes that may lie beyond :data:`TOLERANCE` all the same (``docs/audit.md``)."""

DOUBT = 1e-3
"""The chance, for all streams together, that an honest one is named."""


@dataclass(frozen=True, slots=True)
class Check:
    """One published byte beside the gradient that was computed again: along the same direction, on the assigned
    batch or on a public one. ``code`` may be an abstention; then ``recomputed`` is NaN.
    """

    stream: Stream
    number: int
    round: int
    probe: int
    code: int
    recomputed: float

    @property
    def abstains(self) -> bool:
        """Whether there is no gradient to compare."""
        return codec.is_abstention(self.code) or not math.isfinite(self.recomputed)


class Verdict(StrEnum):
    """What is said of a stream."""

    AGREES = "agrees"
    UNCERTAIN = "cannot tell"
    DISAGREES = "does not agree"
    BREAKS_TERMS = "breaks the recipe's terms"

    @property
    def names(self) -> bool:
        """Whether the stream's owner should be looked at."""
        return self in (Verdict.DISAGREES, Verdict.BREAKS_TERMS)


@dataclass(frozen=True)
class Agreement:
    """How a stream's bytes compare with what its assigned batches give.

    ``worst`` is the largest distance, in root mean squares of all gradients computed again; ``broken`` counts
    messages that break the recipe's terms, among all of the stream's, not only the audited ones.
    """

    stream: Stream
    messages: int
    audited: int
    agree: int
    mismatch: int
    abstained: int
    worst: float
    broken: int
    verdict: Verdict


@dataclass(frozen=True)
class Correlation:
    """How a stream's bytes go with gradients on a public batch.

    Args:
        stream: whose.
        messages: how many it published.
        audited: how many bytes were compared.
        abstained: how many of the chosen bytes abstain.
        same_sign: share of audited bytes with the public gradient's sign.
        r: Pearson's correlation; NaN with less than four bytes.
        error: its standard error, ``sqrt((1 - r**2) / (n - 2))``.
        against_zero: z-score against no correlation, by Fisher's transformation (Fisher 1921).
        against_others: z-score against the correlation of all other streams together; NaN without others.
        broken: messages that break the recipe's terms.
        verdict: what that means.
    """

    stream: Stream
    messages: int
    audited: int
    abstained: int
    same_sign: float
    r: float
    error: float
    against_zero: float
    against_others: float
    broken: int
    verdict: Verdict


def distance(gradient: float, code: int, scale_exponent: int) -> float:
    """How far a gradient lies from the nearest number that rounds to a code; 0 if it does so itself."""
    magnitude = code & 0x7F
    value = abs(codec.decode(magnitude, scale_exponent))
    signed = -gradient if code & 0x80 else gradient
    below = (value + codec.decode(magnitude - 1, scale_exponent)) / 2 if magnitude else -math.inf
    last = magnitude == codec.ABSTAIN - 1
    above = math.inf if last else (value + codec.decode(magnitude + 1, scale_exponent)) / 2
    if magnitude == 0:
        signed = abs(gradient)  # both zeros stand for what is near zero on either side
    return max(below - signed, signed - above, 0.0)


def _by_stream(checks: Sequence[Check]) -> dict[Stream, list[Check]]:
    out: dict[Stream, list[Check]] = {}
    for check in checks:
        out.setdefault(check.stream, []).append(check)
    return out


def scale_of(checks: Sequence[Check]) -> float:
    """Root mean square of the gradients that were computed again."""
    squares = [c.recomputed**2 for c in checks if not c.abstains]
    return math.sqrt(math.fsum(squares) / len(squares)) if squares else 0.0


def at_least(hits: int, tries: int, rate: float) -> float:
    """The chance of ``hits`` or more in ``tries`` where each comes at ``rate``."""
    return math.fsum(math.comb(tries, k) * rate**k * (1 - rate) ** (tries - k) for k in range(hits, tries + 1))


def judge(
    checks: Sequence[Check],
    counts: Mapping[Stream, int],
    broken: Mapping[Stream, int],
    tolerance: float,
    scale_exponent: int,
) -> list[Agreement]:
    """Compare each stream's bytes with what was computed again on their assigned batches.

    A stream is named when an honest one would have as many mismatches less often than ``DOUBT``, shared among the
    streams, at :data:`HONEST_RATE` each.

    Args:
        checks: of all streams.
        counts: messages of each stream.
        broken: messages of each stream that break the recipe's terms.
        tolerance: in root mean squares of all recomputed gradients.
        scale_exponent: the manifest's.
    """
    unit = scale_of(checks) or 1.0
    by_stream = _by_stream(checks)
    out = []
    for stream, messages in counts.items():
        own = by_stream.get(stream, [])
        distances = [distance(c.recomputed, c.code, scale_exponent) / unit for c in own if not c.abstains]
        mismatch = sum(d > tolerance for d in distances)
        verdict = Verdict.AGREES
        if broken.get(stream, 0):
            verdict = Verdict.BREAKS_TERMS
        elif mismatch and at_least(mismatch, len(distances), HONEST_RATE) < DOUBT / len(counts):
            verdict = Verdict.DISAGREES
        elif mismatch or not distances:
            verdict = Verdict.UNCERTAIN
        out.append(
            Agreement(
                stream,
                messages,
                len(distances),
                len(distances) - mismatch,
                mismatch,
                len(own) - len(distances),
                max(distances, default=0.0),
                broken.get(stream, 0),
                verdict,
            )
        )
    return out


def correlate(
    checks: Sequence[Check], counts: Mapping[Stream, int], broken: Mapping[Stream, int], scale_exponent: int
) -> list[Correlation]:
    """Correlate each stream's bytes with gradients on public batches along the same directions.

    A stream disagrees when it is correlated negatively, or less than the others together, with a z-score that
    chance gives less often than ``DOUBT``, shared among the streams; it agrees when it is correlated positively so
    clearly.
    """
    limit = NormalDist().inv_cdf(1 - DOUBT / (2 * max(1, len(counts))))
    by_stream = _by_stream(checks)
    pairs = {stream: _pairs(by_stream.get(stream, []), scale_exponent) for stream in counts}
    whole = Sums.of(pair for own in pairs.values() for pair in own)
    out = []
    for stream, messages in counts.items():
        own = Sums.of(pairs[stream])
        others = whole - own
        r = own.correlation
        zero, versus = z_score(r, own.count), z_between(r, own.count, others.correlation, others.count)
        verdict = Verdict.UNCERTAIN
        if broken.get(stream, 0):
            verdict = Verdict.BREAKS_TERMS
        elif zero < -limit or versus < -limit:
            verdict = Verdict.DISAGREES
        elif zero > limit:
            verdict = Verdict.AGREES
        out.append(
            Correlation(
                stream,
                messages,
                own.count,
                len(by_stream.get(stream, [])) - own.count,
                sum(x * y > 0 for x, y in pairs[stream]) / own.count if own.count else math.nan,
                r,
                math.sqrt((1 - r * r) / (own.count - 2)) if own.count > 2 else math.nan,
                zero,
                versus,
                broken.get(stream, 0),
                verdict,
            )
        )
    return out


Pair = tuple[float, float]


def _pairs(checks: Iterable[Check], scale_exponent: int) -> list[Pair]:
    """What was published, and what was computed again."""
    return [(codec.decode(c.code, scale_exponent), c.recomputed) for c in checks if not c.abstains]


@dataclass(frozen=True)
class Sums:
    """What a correlation needs of pairs ``x, y``; those of a part can be taken from those of the whole."""

    count: int
    x: float
    y: float
    xx: float
    yy: float
    xy: float

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Sums:
        """The sums over pairs."""
        products = [(x, y, x * x, y * y, x * y) for x, y in pairs]
        x, y, xx, yy, xy = map(math.fsum, zip(*products, strict=True)) if products else [0.0] * 5
        return cls(len(products), x, y, xx, yy, xy)

    def __sub__(self, part: Sums) -> Sums:
        return Sums(*(a - b for a, b in zip(astuple(self), astuple(part), strict=True)))

    @property
    def correlation(self) -> float:
        """Pearson's; 0 where ``x`` or ``y`` is constant, NaN where there are less than four pairs."""
        if self.count < 4:
            return math.nan
        xx = self.xx - self.x**2 / self.count
        yy = self.yy - self.y**2 / self.count
        # What is left of equal numbers is rounding.
        if xx <= 1e-12 * self.xx or yy <= 1e-12 * self.yy:
            return 0.0
        return max(-1.0, min(1.0, (self.xy - self.x * self.y / self.count) / math.sqrt(xx * yy)))


def overall(checks: Sequence[Check], scale_exponent: int) -> float:
    """The correlation of all streams together."""
    return Sums.of(_pairs(checks, scale_exponent)).correlation


def z_score(r: float, count: int) -> float:
    """Of a correlation against none; NaN where it is."""
    return _fisher(r) * math.sqrt(count - 3) if count > 3 else math.nan


def z_between(r: float, count: int, other: float, other_count: int) -> float:
    """Of a correlation against an independent one."""
    if min(count, other_count) < 4:
        return math.nan
    return (_fisher(r) - _fisher(other)) / math.sqrt(1 / (count - 3) + 1 / (other_count - 3))


def _fisher(r: float) -> float:
    """Fisher's transformation, kept finite for perfect correlation."""
    if math.isnan(r):
        return math.nan
    return math.atanh(max(-1 + 1e-12, min(1 - 1e-12, r)))


def messages_needed(honest: float, other: float, doubt: float = DOUBT, power: float = 0.95) -> int | None:
    """How many bytes tell a correlation of ``other`` from an honest one; ``None`` where they do not differ so.

    Both errors by Fisher's transformation, one-sided: ``3 + ((z(doubt) + z(power)) / difference)**2``.
    """
    apart = _fisher(honest) - _fisher(other)
    if not apart > 0:
        return None
    normal = NormalDist()
    return 3 + math.ceil(((normal.inv_cdf(1 - doubt) + normal.inv_cdf(power)) / apart) ** 2)

"""What audited bytes say of those who published them: two statistics, each with its verdict for a stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from shared_seed import codec
from shared_seed.messages import Stream

Numbers = NDArray[np.float64]

TOLERANCE = 0.4
"""How far from its byte an honest gradient may come out elsewhere, in root mean squares of all gradients."""

HONEST_RATE = 0.02
"""The share of an honest peer's bytes that may lie beyond :data:`TOLERANCE` all the same (``docs/audit.md``)."""

DOUBT = 1e-3
"""The chance, for all streams together, that an honest one is named."""


HALVINGS = 20
"""Of an angle whose sine is a correlation, until it is known well enough."""


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
        against_zero: z-score against no correlation (:func:`z_score`).
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
    out = []
    for stream, messages in counts.items():
        own = pairs[stream]
        others = np.concatenate([np.empty((0, 2)), *(found for other, found in pairs.items() if other != stream)])
        r = correlation(own)
        zero, versus = z_score(own, 0.0), z_between(own, others)
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
                len(own),
                len(by_stream.get(stream, [])) - len(own),
                float((own[:, 0] * own[:, 1] > 0).mean()) if len(own) else math.nan,
                r,
                math.sqrt((1 - r * r) / (len(own) - 2)) if len(own) > 2 else math.nan,
                zero,
                versus,
                broken.get(stream, 0),
                verdict,
            )
        )
    return out


def _pairs(checks: Sequence[Check], scale_exponent: int) -> Numbers:
    """[bytes, 2]: what was published, and what was computed again."""
    found = [(codec.decode(c.code, scale_exponent), c.recomputed) for c in checks if not c.abstains]
    return np.array(found, np.float64).reshape(-1, 2)


def correlation(pairs: Numbers) -> float:
    """Pearson's, of float64 [pairs, 2]; 0 where a column is constant, NaN where there are less than four pairs."""
    if len(pairs) < 4:
        return math.nan
    above = pairs - pairs.mean(0)
    squares = (above**2).mean(0)
    # What is left of equal numbers is rounding.
    if (squares <= 1e-12 * (pairs**2).mean(0)).any():
        return 0.0
    return max(-1.0, min(1.0, float(above.prod(1).mean() / np.sqrt(squares.prod()))))


def overall(checks: Sequence[Check], scale_exponent: int) -> float:
    """The correlation of all streams together."""
    return correlation(_pairs(checks, scale_exponent))


def z_score(pairs: Numbers, r: float) -> float:
    """Of pairs against a correlation ``r``: Wilcoxon's signed-rank statistic of ``x y - r / 2 (x**2 + y**2)``.

    For normal ``x, y`` of that correlation, of mean 0 and equally long, that is ``(1 - r**2) / 2 (a**2 - b**2)``
    with ``a, b`` independent and normal: as often above 0 as below, however far. It remains so where both columns
    are large in the same rows, as gradients of a run are that begins steeply; such rows alone decide Pearson's
    correlation, and Fisher's transformation of it. The score is at most ``sqrt(3 n) / 2`` or so: few pairs prove
    nothing.

    Args:
        pairs: float64 [pairs, 2], as often positive as negative.
        r: the correlation that is doubted.

    Returns:
        NaN where there are less than four pairs.
    """
    if len(pairs) < 4:
        return math.nan
    x, y = (pairs / _lengths(pairs)).T
    terms = x * y - r / 2 * (x**2 + y**2)
    _, place, ties = np.unique(np.abs(terms), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(ties) - (ties - 1) / 2)[place]
    return float(np.sign(terms) @ ranks / np.linalg.norm(ranks))


def _lengths(pairs: Numbers) -> Numbers:
    """How large numbers of either column are, by what a few large ones do not decide; 1 where all are 0."""
    lengths: Numbers = np.median(np.abs(pairs), axis=0)
    roots = np.sqrt((pairs**2).mean(0))
    return np.where(lengths > 0, lengths, np.where(roots > 0, roots, 1.0))


def z_between(pairs: Numbers, others: Numbers) -> float:
    """Of pairs against the correlation of independent ones, whatever it is.

    Where both have the correlation r, their scores against it are independent, of variance 1, so that the least
    sum of squares over all r is about a chi-square variable of one degree of freedom. It is where the scores, each
    by the root of its number, are opposite.

    Returns:
        The sum's root, negative where the pairs' correlation is the smaller one; NaN where either are less than
        four.
    """
    if min(len(pairs), len(others)) < 4:
        return math.nan

    def scores(angle: float) -> tuple[float, float]:
        return z_score(pairs, math.sin(angle)), z_score(others, math.sin(angle))

    roots = math.sqrt(len(pairs)), math.sqrt(len(others))
    low, high = -math.pi / 2, math.pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if np.dot(roots, scores(middle)) > 0:
            low = middle
        else:
            high = middle
    own, theirs = min(scores(low), scores(high), key=lambda both: math.hypot(*both))
    return math.copysign(math.hypot(own, theirs), own - theirs)


def messages_needed(honest: float, other: float, doubt: float = DOUBT, power: float = 0.95) -> int | None:
    """How many bytes tell a correlation of ``other`` from an honest one; ``None`` where they do not differ so.

    By the signed-rank statistic above: ``((z(doubt) + z(power)) / d)**2``, one-sided, with
    ``d = sqrt(3) / 2 * (honest - other) / (1 - honest * other)`` for normal pairs. There the sum of two of the
    statistic's terms is a difference of two exponential variables, of ``(1 - honest) (1 + other)`` and
    ``(1 + honest) (1 - other)``, and the larger one's chance to win is its part of their sum.
    """
    if not honest > other:
        return None
    apart = math.sqrt(3) / 2 * (honest - other) / (1 - honest * other)
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(1 - doubt) + normal.inv_cdf(power)) / apart) ** 2)

"""Numbers as people read them, and round numbers for axes."""

from __future__ import annotations

import math


def of_bytes(count: float) -> str:
    """Bytes in decimal units, to three digits: ``81.6 kB``."""
    value, names = float(count), ["B", "kB", "MB", "GB", "TB", "PB", "EB"]
    while value >= 999.5 and len(names) > 1:
        value /= 1000
        del names[0]
    return f"{value:.0f} {names[0]}" if names[0] == "B" or value >= 100 else f"{value:.3g} {names[0]}"


def of_seconds(seconds: float) -> str:
    """A time to two units: ``9 min 30 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next(i for i, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def of_number(value: float) -> str:
    """A number to three digits, or a question mark where it is not known."""
    return f"{value:.3g}" if math.isfinite(value) else "?"


def of_factor(factor: float) -> str:
    """How many times: ``1,080,000``, ``46``, ``1.3``."""
    if factor < 10:
        return f"{factor:.1f}"
    digits = max(0, math.floor(math.log10(factor)) - 2)
    return f"{round(factor, -digits):,.0f}"


def ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within a range, no more than about ``most``."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def time_ticks(high: float, most: int) -> list[float]:
    """Multiples of a round time, in seconds, from 0 on."""
    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((s for s in steps if high / s <= most), None)
    if high < 1 or step is None:
        return ticks(0, high, most)
    return [float(n * step) for n in range(math.floor(high / step) + 1)]

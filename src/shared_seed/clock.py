"""The only importer of :mod:`time`: everything else is handed ``now``."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return time.monotonic()


def rest(seconds: float) -> None:
    """Do nothing for so long."""
    time.sleep(seconds)


def date() -> str:
    """Today in UTC, as ``2026-01-31``."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def stamp() -> int:
    """Seconds since 1970: larger in a later process, as long as the machine's date is right."""
    return int(time.time()) & 0xFFFFFFFF

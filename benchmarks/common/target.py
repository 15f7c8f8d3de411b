"""A figure that was promised, beside the one that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """``limit`` is the most that ``measured`` may be, or with ``at_least`` the least."""

    what: str
    limit: float
    measured: float
    at_least: bool = False
    unit: str = "x"

    @property
    def met(self) -> bool:
        """Whether the measured figure is on the right side of the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def verdict(self) -> str:
        """``met``, or by how much it was missed."""
        if self.met:
            return "met"
        return f"missed by {100 * abs(self.measured / self.limit - 1):.0f} %"

    @property
    def goal(self) -> str:
        """The limit with its side and unit."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{self.unit}"

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {**asdict(self), "met": self.met}


def table(targets: Sequence[Target]) -> str:
    """Targets as a Markdown table."""
    lines = ["| | target | measured | |", "|---|---|---|---|"]
    lines += [f"| {t.what} | {t.goal} | {t.measured:.3g}{t.unit} | {t.verdict} |" for t in targets]
    return "\n".join(lines)

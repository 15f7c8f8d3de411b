"""Keeps what a session reports, for the tests of both plugins."""

from __future__ import annotations

from shared_seed.outcome import Step
from shared_seed.session import Session


class Recorder:
    """Keeps every step, and the codes of all messages so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.codes: list[bytes] = []

    def __call__(self, session: Session, step: Step) -> None:
        self.steps.append(step)
        self.codes = [m.codes for m in session.protocol.archive]

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

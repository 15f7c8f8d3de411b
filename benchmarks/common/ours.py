"""Shared-seed through its public door: a session alone, with nobody to wait for and nothing written to disk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.workloads import Step, Workload
from shared_seed.noise import Sample
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import MOST_ROUNDS, Training
from shared_seed.weights import Weights

EPSILON = 2.0**-8
LEARNING_RATE = 2e-6


def open_session(model: Any) -> Session:
    """Put a model on its grids and begin a run of one peer."""
    settings = Settings(epsilon=EPSILON, promise=None, directions=1)
    session = Session.open(model, settings, Training(rounds=MOST_ROUNDS))
    session.begin()
    return session


def step(work: Workload, session: Session) -> Step:
    """One probe and one update with it, the pair of forwards inside one autocast as the plugins have it."""

    def run() -> None:
        session.measure(work.loss, work.autocast())
        session.step(LEARNING_RATE)

    return run


def gradients(count: int, seed: int = 0) -> tuple[list[Sample], NDArray[np.float64]]:
    """Directions of ``count`` peers and the step along each, float64 [count], of the size of real ones."""
    draw = np.random.default_rng(seed)
    samples = [Sample(int(key), 0, 0) for key in draw.integers(1 << 63, size=count)]
    return samples, LEARNING_RATE * 10 * draw.choice((-1.0, 1.0), count) * draw.uniform(0.5, 2, count)


def weights_of(model: Any) -> Weights:
    """A model's weights on their grids, without a session."""
    return Weights.of(model, EPSILON)

"""Generator states survive packing."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from shared_seed.generators import Generators


def draw() -> list[float]:
    return [
        float(torch.rand(())),
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
    ]


def test_restored_generators_draw_the_same_again() -> None:
    random.gauss(0, 1)
    np.random.randn()
    states = Generators()
    first = draw()
    assert draw() != first
    states.restore()
    assert draw() == first


def test_packed_states_pass_through_a_checkpoint_that_holds_tensors_alone() -> None:
    random.gauss(0, 1)
    np.random.randn(3)
    file = io.BytesIO()
    torch.save(Generators().pack(), file)
    first = draw()
    file.seek(0)
    Generators.unpack(torch.load(file, weights_only=True)).restore()
    assert draw() == first

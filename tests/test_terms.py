"""What a run's terms are where its settings leave them open."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import models
from shared_seed.settings import Settings
from shared_seed.terms import agree
from shared_seed.training import Training


def all_trained(model: Any) -> Any:
    return model.requires_grad_(True)


@pytest.mark.parametrize(
    ("model", "epsilon"),
    [
        (models.llama, 2.0**-8),
        (lambda: models.lora(models.llama()), 2.0**-6),
        (lambda: nn.ModuleDict({"a_lightning_modules": models.lora(models.llama())}), 2.0**-6),
        (lambda: all_trained(models.lora(models.llama())), 2.0**-8),
    ],
    ids=["a model", "an adapter", "an adapter inside", "a model with an adapter in it"],
)
def test_probes_of_an_adapter_look_further(model: Any, epsilon: float) -> None:
    assert agree(model(), Settings(number=0), Training(rounds=1)).replica.manifest.epsilon == epsilon
    told = Settings(number=0, epsilon=2.0**-10)
    assert agree(model(), told, Training(rounds=1)).replica.manifest.epsilon == 2.0**-10

"""What a run is said to take, beside what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models
import tiny
from shared_seed import calibration, recipe
from shared_seed.calibration import seconds_a_step
from shared_seed.cli_estimate import size, span
from shared_seed.errors import ModelError
from shared_seed.estimate import KERNELS, Memory, Parameters, Wire
from shared_seed.integrations.transformers.models import load, skeleton
from shared_seed.messages import Message, Stream
from shared_seed.recipe import Recipe
from shared_seed.signed import Signed

TASK = {"prompt": "{text} it was", "words": {"0": "terrible", "1": "great"}}


def terms(**changes: Any) -> Recipe:
    training = {"steps": 1, "learning_rate": 0.1, "batch_size": 4} | changes.pop("training", {})
    return recipe.parse({"model": "x", "dataset": "y", "task": TASK, "training": training, **changes}, "here")


def shape(**changes: Any) -> Any:
    return models.llama(hidden_size=64, intermediate_size=128, head_dim=32, **changes).config


def bytes_of(model: nn.Module) -> int:
    """What a model's own tensors hold, quantised ones' scales too."""
    held = list(model.parameters())
    scales = [p.quant_state.absmax for p in held if hasattr(p, "quant_state")]
    return sum(t.numel() * t.element_size() for t in [*held, *scales])


@pytest.mark.parametrize("weights", ["fp32", "bf16", "4bit"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_weights_of_a_loaded_model_are_as_foretold(tmp_path: Path, weights: str, tied: bool) -> None:
    torch.manual_seed(0)
    models.llama(hidden_size=64, intermediate_size=128, head_dim=32, tie_word_embeddings=tied).save_pretrained(
        tmp_path
    )
    tiny.tokenizer().save_pretrained(tmp_path)
    found = terms(weights=weights, lora={"rank": 2})
    model, _ = load(str(tmp_path), found.lora, 0, weights)
    memory = Memory.of(skeleton(shape(tie_word_embeddings=tied), found.lora), found)
    assert memory.weights == bytes_of(model)


def test_trained_weights_take_4_bytes_and_fp32_keeps_casts() -> None:
    model = skeleton(shape())
    count = Parameters.of(model).total
    matrices = sum({p: p.numel() for n, p in model.named_parameters() if p.dim() == 2}.values())
    bf16_products = {"precision": "bf16"}
    fp32, bf16 = (Memory.of(model, terms(weights=w, training=bf16_products)) for w in ("fp32", "bf16"))
    assert (fp32.weights, bf16.weights) == (4 * count, 4 * count)
    assert (fp32.casts, bf16.casts) == (2 * matrices, 0)
    assert Memory.of(model, terms(training={"precision": "fp32"})).casts == 0
    assert fp32.total == fp32.weights + fp32.casts + fp32.activations + fp32.libraries
    assert fp32.libraries >= KERNELS + 100e6


def test_a_base_of_4_bits_is_unpacked_a_matrix_at_a_time_but_for_its_head() -> None:
    memory = Memory.of(
        skeleton(shape(vocab_size=480), recipe.Lora(rank=2)), terms(weights="4bit", lora={"rank": 2})
    )
    adapters = Parameters.of(skeleton(shape(), recipe.Lora(rank=2))).trained
    assert memory.casts == 2 * (64 * 128 + adapters)


def test_a_gpu_keeps_casts_of_trained_matrices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = skeleton(shape(), recipe.Lora(rank=2))
    adapters = Parameters.of(model).trained
    lora = terms(lora={"rank": 2}, training={"precision": "bf16"})
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    assert Memory.of(model, lora).casts == 2 * matrices
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    largest = max(p.numel() for p in model.parameters() if p.dim() == 2 and not p.requires_grad)
    assert Memory.of(model, lora).casts == 2 * (adapters + largest)


def test_activations_grow_with_rows_and_only_where_all_positions_count_with_the_vocabulary() -> None:
    one, two = (Memory.of(skeleton(shape()), terms(training={"batch_size": n})) for n in (4, 8))
    assert two.activations == 2 * one.activations
    wide = Memory.of(skeleton(shape(vocab_size=480)), terms(training={"batch_size": 4}))
    assert wide.activations == one.activations


@pytest.mark.parametrize("probes", [1, 7])
def test_the_bytes_of_a_step_are_those_of_real_messages(probes: int) -> None:
    wire = Wire.of(probes, 5)
    said = Signed(Message(Stream(b"x" * 12, 3), 9, 9, 0.5, bytes(range(probes))), b"s" * 64)
    assert wire.message == len(said.encode())
    assert (wire.received, wire.log) == (4 * wire.message, 5 * wire.message)


@pytest.mark.parametrize(
    "change", [{}, {"weights": "bf16"}, {"lora": {"rank": 2}}, {"weights": "4bit", "lora": {}}]
)
def test_a_step_is_measured(tmp_path: Path, change: dict[str, Any]) -> None:
    models.llama(hidden_size=64, intermediate_size=128, head_dim=32).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    found = terms(**change).model_copy(update={"model": str(tmp_path)})
    assert 0 < seconds_a_step(found, 10**6) < 60


def test_a_model_that_is_too_large_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it needs more than 80% of the"):
        seconds_a_step(terms(), 10**16)
    with pytest.raises(ModelError, match="cannot load model"):
        seconds_a_step(terms().model_copy(update={"model": str(tmp_path / "nowhere")}), 0)
    assert calibration.SHARE < 1


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (2_500_000, "2.5 MB"), (16_060_522_496, "16.1 GB")],
)
def test_sizes_are_for_people(count: int, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize(("seconds", "said"), [(3.2, "3 s"), (600, "10 min"), (7200, "2.0 h"), (99_000, "27.5 h")])
def test_spans_are_for_people(seconds: float, said: str) -> None:
    assert span(seconds) == said

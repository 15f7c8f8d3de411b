"""Adapters on quantised and half-precision bases, which are never written."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import models
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.weights import Weights, frozen_digest
from trainers import ALONE, Recorder, assert_left_alone, rows, trainer_of

pytestmark = [
    # Says in which dtype it multiplies.
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
    pytest.mark.filterwarnings("ignore:Merge lora module to:UserWarning"),
]

CONFIGS = {
    "4 bits": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
    "8 bits": lambda: BitsAndBytesConfig(load_in_8bit=True),
    "bf16": lambda: None,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model as it comes from the Hub."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    models.llama(hidden_size=64, intermediate_size=128).save_pretrained(folder)
    return folder


def load(saved: Path, precision: str) -> Any:
    config = CONFIGS[precision]()
    dtype = torch.bfloat16 if config is None else torch.float32
    where = {} if config is None else {"device_map": "cpu", "quantization_config": config}
    return AutoModelForCausalLM.from_pretrained(saved, dtype=dtype, **where)


def with_adapter(base: Any) -> Any:
    torch.manual_seed(1)
    return peft.get_peft_model(
        base, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )


def frozen(model: Any) -> dict[str, bytes]:
    return {name: bits for name, bits in models.bits(model).items() if "lora" not in name}


@pytest.mark.parametrize("precision", CONFIGS)
def test_an_adapter_is_trained_on_a_base_that_stays_as_it_was(tmp_path: Path, saved: Path, precision: str) -> None:
    recorder = Recorder()
    model = with_adapter(load(saved, precision))
    before = frozen(model)
    assert all(not p.detach().any() for name, p in model.named_parameters() if "lora_B" in name)
    callback = SharedSeedCallback(ALONE, on_step=recorder)
    trainer = trainer_of(tmp_path, model, callback, max_steps=150, learning_rate=0.2)
    trainer.train()
    assert sum(recorder.losses[-10:]) / 10 < sum(recorder.losses[:5]) / 5 - 0.15
    assert frozen(model) == before
    assert_left_alone(trainer)

    trainer.save_model(str(tmp_path / "adapter"))
    again = peft.PeftModel.from_pretrained(load(saved, precision), tmp_path / "adapter")
    batch = {name: torch.stack([row[name] for row in rows(8)]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = model.eval()(**batch).logits
        assert torch.equal(again.eval()(**batch).logits, logits)


@pytest.mark.parametrize("precision", CONFIGS)
def test_the_same_base_gives_the_same_bits(tmp_path: Path, saved: Path, precision: str) -> None:
    digests = []
    for _ in range(2):
        callback = SharedSeedCallback(ALONE)
        trainer_of(tmp_path, with_adapter(load(saved, precision)), callback, learning_rate=0.2).train()
        assert callback.outcome is not None
        digests.append(callback.outcome.digest)
    assert digests[0] == digests[1]


def test_resuming_an_adapter_on_a_quantised_base_gives_the_same_bits(tmp_path: Path, saved: Path) -> None:
    arguments = {"learning_rate": 0.2, "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    straight, resumed = SharedSeedCallback(ALONE), SharedSeedCallback(ALONE)
    trainer_of(tmp_path, with_adapter(load(saved, "4 bits")), straight, **arguments).train()
    trainer = trainer_of(tmp_path, with_adapter(load(saved, "4 bits")), resumed, **arguments)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-3"))
    assert straight.outcome is not None
    assert resumed.outcome is not None
    assert resumed.outcome.digest == straight.outcome.digest


@pytest.mark.parametrize("build", [models.llama, models.opt])
def test_an_adapter_starts_where_only_b_moves(tmp_path: Path, build: Any) -> None:
    model = with_adapter(build())
    before = copy.deepcopy(model)
    recorder = Recorder()
    trainer = trainer_of(
        tmp_path, model, SharedSeedCallback(ALONE, on_step=recorder), max_steps=100, learning_rate=0.2
    )
    trainer.train()
    assert sum(recorder.losses[-10:]) / 10 < sum(recorder.losses[:5]) / 5 - 0.05
    b = {n for n, p in before.named_parameters() if "lora_B" in n}
    after = models.bits(model)
    assert all(after[name] != bits for name, bits in models.bits(before).items() if name in b)


def test_a_base_of_tensor_subclasses_is_known_by_their_parts() -> None:
    # As torchao's quantised weights are.
    def digest(scale: float) -> str:
        model = models.mlp()
        weights = Weights.of(model, models.EPSILON)
        model.register_buffer("quantised", TwoTensor(torch.ones(3), torch.full((3,), scale)))
        return frozen_digest(model, weights)

    assert digest(1.0) == digest(1.0)
    assert digest(1.0) != digest(2.0)

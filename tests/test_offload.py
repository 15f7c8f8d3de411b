"""Models that accelerate has dispatched or offloaded train to the bits of the same models left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

import models
from shared_seed.errors import ModelError
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.offload import homes
from shared_seed.perturbation import Perturbation
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.training import Training
from shared_seed.weights import Weights, frozen_digest
from trainers import ALONE, Recorder, assert_left_alone, trainer_of

CPU = torch.device("cpu")


def on_one_device(model: Any, folder: Path) -> Any:
    return dispatch_model(model, {"": "cpu"}, main_device="cpu", force_hooks=True)


def mapped(model: Any) -> Any:
    """The model with what ``dispatch_model`` notes on it, so that a Trainer leaves it where it is."""
    model.hf_device_map = {"model": "cpu", "lm_head": "cpu"}
    return model


def on_the_cpu(model: Any, folder: Path) -> Any:
    return mapped(cpu_offload(model, CPU))


def on_the_cpu_with_buffers(model: Any, folder: Path) -> Any:
    return mapped(cpu_offload(model, CPU, offload_buffers=True))


def on_disk(model: Any, folder: Path) -> Any:
    return disk_offload(model, str(folder / "offloaded"), CPU)


IN_MEMORY = [on_one_device, on_the_cpu, on_the_cpu_with_buffers]


def half(build: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: build().bfloat16()


BUILDS = {
    "llama": models.llama,
    "untied llama": lambda: models.llama(tie_word_embeddings=False),
    "opt": lambda: models.opt(dropout=0.0),
    "gpt2": models.gpt2,
    "llama in bf16": half(models.llama),
    "adapter": lambda: models.lora(models.llama()),
    "adapter on bf16": lambda: models.lora(models.llama().bfloat16()),
}


def trained(model: Any, steps: int = 3) -> tuple[Session, str]:
    torch.manual_seed(0)
    session = Session.open(model, Settings(number=0), Training(rounds=steps))
    session.begin()
    loss = models.next_token_loss(model, models.tokens())
    for _ in range(steps):
        session.measure(lambda: loss().float())
        session.measure(lambda: loss().float())
        session.step(2e-3)
    return session, session.finish().digest


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("place", IN_MEMORY, ids=lambda place: place.__name__)
def test_training_gives_the_bits_of_the_model_left_alone(tmp_path: Path, name: str, place: Any) -> None:
    base = BUILDS[name]()
    alone, expected = trained(copy.deepcopy(base))
    session, found = trained(place(base, tmp_path))
    assert session.manifest.tensors == alone.manifest.tensors
    assert session.manifest.frozen_digest == alone.manifest.frozen_digest
    assert found == expected
    assert models.hooks(base) == 0


def base_on_disk(model: Any, folder: Path) -> Any:
    """An adapter in memory, its base on disk."""
    leaves = [name for name, m in model.named_modules() if next(m.parameters(False), None) is not None]
    places = {name: "cpu" if "lora_" in name else "disk" for name in leaves}
    places |= {name: "cpu" for name, module in model.named_modules() if name.endswith("rotary_emb")}
    return dispatch_model(
        model, places, main_device="cpu", offload_dir=str(folder / "offloaded"), force_hooks=True
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_an_adapter_on_a_base_on_disk_gives_the_same_bits(tmp_path: Path, kind: Any, tied: bool) -> None:
    base = models.lora(models.llama(tie_word_embeddings=tied).to(kind))
    alone, expected = trained(copy.deepcopy(base))
    model = base_on_disk(base, tmp_path)
    assert {"lora_" in name for name, p in model.named_parameters() if p.is_meta} == {False}
    session, found = trained(model)
    assert session.manifest.tensors == alone.manifest.tensors
    assert session.manifest.frozen_digest == alone.manifest.frozen_digest
    assert found == expected


def test_trainable_weights_on_disk_are_refused(tmp_path: Path) -> None:
    model = on_disk(models.llama(), tmp_path)
    with pytest.raises(ModelError, match=r"is offloaded to disk, where an update would be lost.*LoRA"):
        Session.open(model, Settings(), Training(rounds=1))


def test_frozen_weights_on_disk_may_stay_there(tmp_path: Path) -> None:
    base = models.llama(tie_word_embeddings=False)
    for name, parameter in base.named_parameters():
        parameter.requires_grad_("layers.1" not in name and "norm" in name)
    plain = copy.deepcopy(base)
    map_ = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    map_ |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    folder = str(tmp_path / "offloaded")
    model = dispatch_model(base, map_, main_device="cpu", offload_dir=folder, force_hooks=True)
    assert homes(model)
    assert frozen_digest(model, Weights.of(model, models.EPSILON)) == frozen_digest(
        plain, Weights.of(plain, models.EPSILON)
    )
    assert trained(model)[1] == trained(plain)[1]


@torch.no_grad()
def test_both_sides_of_a_probe_equal_those_of_the_model_left_alone(tmp_path: Path) -> None:
    base = models.llama()
    ids = models.tokens()
    found = []
    for model in (copy.deepcopy(base), on_the_cpu(base, tmp_path)):
        replica = models.replica_of(model)
        perturbation = Perturbation(replica.weights, models.EPSILON)
        with perturbation.along(models.SAMPLE) as move:
            for sign in (+1, -1, 0):
                move(sign)
                with perturbation.checked():
                    found.append(model(ids).logits)
    for plain, offloaded in zip(found[:3], found[3:], strict=True):
        assert torch.equal(plain, offloaded)
    assert not torch.equal(found[0], found[1])


def test_trainable_weights_that_are_offloaded_by_the_block_are_refused() -> None:
    model = cpu_offload(models.llama(), CPU, preload_module_classes=["LlamaDecoderLayer"])
    with pytest.raises(ModelError, match=r"with a whole block of modules.*leave preload_module_classes out"):
        Weights.of(model, models.EPSILON)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers" not in name)
    plain = models.llama()
    plain.load_state_dict({name: home.values() for name, home in homes(model).items()})
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_("layers" not in name)
    assert trained(model)[1] == trained(plain)[1]


def test_an_adapter_that_is_put_on_an_offloaded_base_has_no_values(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(on_the_cpu(models.llama(), tmp_path), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ModelError, match=r"on the meta device.*call get_peft_model before weights are offloaded"):
        Weights.of(model, models.EPSILON)


@pytest.mark.parametrize("place", IN_MEMORY, ids=lambda place: place.__name__)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_trainer_trains_a_dispatched_model(tmp_path: Path, place: Any, kind: Any) -> None:
    base = models.llama().to(kind)
    digests, losses = [], []
    for model in (copy.deepcopy(base), place(base, tmp_path)):
        recorder = Recorder()
        callback = SharedSeedCallback(ALONE, on_step=recorder)
        trainer = trainer_of(tmp_path, model, callback)
        trainer.train()
        assert callback.outcome is not None
        digests.append(callback.outcome.digest)
        losses.append(recorder.losses)
        assert_left_alone(trainer)
    assert digests[0] == digests[1]
    assert losses[0] == losses[1]


def test_a_model_loaded_with_a_device_map_trains(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    models.llama().save_pretrained(tmp_path / "model")
    digests = []
    for options in ({}, {"device_map": "auto"}, {"device_map": {"": "cpu"}}):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16, **options)
        callback = SharedSeedCallback(ALONE)
        trainer_of(tmp_path, model, callback).train()
        assert callback.outcome is not None
        digests.append(callback.outcome.digest)
    assert len(set(digests)) == 1

"""Model cards and tags say how the model was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub import ModelCard

import models
from shared_seed import log
from shared_seed.integrations.transformers import SharedSeedCallback, card
from shared_seed.manifest import Manifest
from shared_seed.outcome import Outcome
from shared_seed.swarm.traffic import Traffic
from trainers import ALONE, trainer_of


def trained(folder: Path, model: Any, **arguments: Any) -> tuple[transformers.Trainer, SharedSeedCallback]:
    callback = SharedSeedCallback(ALONE)
    trainer = trainer_of(folder, model, callback, **arguments)
    trainer.train()
    return trainer, callback


@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_the_trainers_card_names_shared_seed_as_the_optimizer(tmp_path: Path, optimizer: str) -> None:
    trainer, callback = trained(tmp_path, models.llama(), optim=optimizer)
    for _ in range(2):
        trainer.create_model_card(model_name="small", tags="mine")
    path = tmp_path / "out" / "README.md"
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("- optimizer"))
    assert line.startswith("- optimizer: shared-seed SPSA; no backprop, no optimizer state")
    assert line.endswith(f"schedule of {optimizer}")
    assert "betas=" not in text
    assert "No additional optimizer arguments" not in text
    assert "- lr_scheduler_type: constant" in text
    assert callback.outcome is not None
    assert text.count("## Shared-seed SPSA") == 1
    assert f"`{callback.outcome.digest}`" in text
    assert "| projected gradients | 4, in 4 messages |" in text
    assert log.read(tmp_path / "out" / "gradients.sslog").digest == (4, bytes.fromhex(callback.outcome.digest))
    assert Manifest.model_validate(json.loads((tmp_path / "out" / "manifest.json").read_text())).rounds == 4
    tags = ModelCard.load(path).data.tags
    assert {"mine", *card.TAGS} <= set(tags)
    assert len(tags) == len(set(tags))


def test_the_card_beside_an_adapter_keeps_what_peft_writes(tmp_path: Path) -> None:
    trainer, _ = trained(tmp_path, models.lora(models.llama()))
    trainer.save_model()
    trainer.create_model_card()
    loaded = ModelCard.load(tmp_path / "out" / "README.md")
    assert loaded.data.library_name == "peft"
    assert set(card.TAGS) <= set(loaded.data.tags)
    assert "## Shared-seed SPSA" in loaded.text


def test_the_model_carries_the_tags(tmp_path: Path) -> None:
    model = models.llama()
    trained(tmp_path, model)
    trained(tmp_path, model)
    assert [tag for tag in model.model_tags if tag in card.TAGS] == list(card.TAGS)


def test_a_card_of_backprop_is_left_alone(tmp_path: Path) -> None:
    trainer, callback = trained(tmp_path, models.llama(), optim="adamw_torch")
    trainer.remove_callback(callback)
    trainer.train()
    trainer.create_model_card()
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Use OptimizerNames.ADAMW_TORCH with betas" in text or "Use adamw_torch with betas" in text
    assert "## Shared-seed SPSA" not in text


def test_a_card_without_metadata_or_optimizer_is_amended(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# A model\n\nTrained somehow.\n")
    card.edit(path, None)
    card_of = ModelCard.load(path)
    assert card_of.data.tags == list(card.TAGS)
    assert card_of.text.strip().startswith("# A model")
    assert "SHA-256" not in card_of.text
    card.edit(path, card.Ended(Outcome("ab", {}, 1, 2, 3, Traffic(sent=4, received=5000))))
    text = path.read_text()
    assert "| bytes sent and received | 4 and 5,000 |" in text
    assert "| energy of the machine while training | not measured |" in text

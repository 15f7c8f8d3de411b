"""Model cards and tags say how the model was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub import ModelCard

import models
from shared_seed.integrations.transformers import SharedSeedCallback, card
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


class Hub:
    """In the Hub's place: keeps what would be uploaded."""

    def __init__(self) -> None:
        self.uploads: list[tuple[str, set[str]]] = []

    def upload_folder(self, *, folder_path: str, **kwargs: Any) -> Any:
        files = {path.name for path in Path(folder_path).iterdir()}
        self.uploads.append((folder_path, files))

        class Job:
            def done(self) -> bool:
                return True

            def result(self) -> None:
                return None

        return Job()


def test_pushing_uploads_the_card_and_the_runs_state_with_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)

    def init(trainer: transformers.Trainer, **_: Any) -> None:
        trainer.hub_model_id, trainer.push_in_progress = "me/small", None

    monkeypatch.setattr(transformers.Trainer, "init_hf_repo", init)
    trainer, _ = trained(
        tmp_path,
        models.llama(),
        push_to_hub=True,
        hub_model_id="me/small",
        hub_strategy="all_checkpoints",
        save_strategy="steps",
        save_steps=2,
    )
    checkpoints = [files for folder, files in hub.uploads if Path(folder).name.startswith("checkpoint-")]
    assert len(checkpoints) == 2
    assert all({"gradients.sslog", "peer.json", "model.safetensors"} <= files for files in checkpoints)
    trainer.push_to_hub()
    folder, files = hub.uploads[-1]
    assert {"README.md", "model.safetensors"} <= files
    written = ModelCard.load(Path(folder) / "README.md")
    assert set(card.TAGS) <= set(written.data.tags)
    assert "shared-seed SPSA" in written.text


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
    card.edit(path, Outcome("ab", {}, 1, 2, 3, Traffic(sent=4, received=5000)))
    text = path.read_text()
    assert "| bytes sent and received | 4 and 5,000 |" in text

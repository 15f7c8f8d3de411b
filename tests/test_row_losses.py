"""Recipes and Trainers tell each row's loss, where rows are classified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForSequenceClassification

import lit
import models
import tiny
from recorder import Recorder
from shared_seed import data, recipe
from shared_seed.belief import SHARES
from shared_seed.classification import Classification
from shared_seed.integrations.lightning import SharedSeedStrategy
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.integrations.transformers.models import load
from shared_seed.job import Job, fit
from shared_seed.rows import RowLosses
from shared_seed.run import settings_for
from shared_seed.session import Session
from shared_seed.settings import Settings
from trainers import rows, trainer_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
]


class Kept(RowLosses):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Tensor, Tensor | None]] = []

    def note(self, losses: Tensor, labels: Tensor | None = None, before: Tensor | None = None) -> None:
        self.told.append((losses, labels))
        super().note(losses, labels, before)


@pytest.mark.parametrize("batches", ["shuffled", "assigned"])
def test_recipes_tell_their_rows_in_both_loops(batches: str, tmp_path: Path) -> None:
    found = []
    for trainer in ("transformers", "lightning"):
        (tmp_path / trainer).mkdir()
        wanted = {"learning_rate": "auto", "directions": 3, "probes_per_step": 2, "steps": 3}
        terms = recipe.load(tiny.recipe(tmp_path / trainer, trainer=trainer, batches=batches, **wanted))
        model, tokenizer = load(terms.model)
        task = Classification(terms.task, tokenizer, model)  # type: ignore[arg-type]
        task.row_losses = kept = Kept()
        features = task.encode(data.parts(terms.dataset, terms.task, 0).train)
        seen: list[tuple[float, ...]] = []
        settings = settings_for(terms, None, number=0)
        fit(Job(terms, settings, model, task, features, lambda session, _, seen=seen: seen.append(known(session))))
        found.append(seen)
        assert len(kept.told) == 3 * 2 * (1 + 3)
        # Batches of a loader have their share of each label, those that a run assigns have not.
        assert all((labels is None) == (batches == "assigned") for _, labels in kept.told)
    assert len(found[0]) == 3
    assert all(told for told, *_ in found[0]), "rows have told"
    if batches == "shuffled":
        assert found[0] == found[1]


def judge(classes: int) -> Any:
    """A small Llama with a head; of one class, it says a number."""
    torch.manual_seed(0)
    config = models.llama().config
    config.num_labels = classes
    return LlamaForSequenceClassification(config)


def judged(classes: int) -> list[dict[str, Tensor]]:
    return [{"input_ids": row["input_ids"], "labels": row["input_ids"][-1] % classes} for row in rows()]


def focal(outputs: Any, labels: Tensor, **_: Any) -> Tensor:
    return nn.functional.cross_entropy(outputs.logits, labels).square()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_trainer_whose_model_classifies_tells_its_rows(tmp_path: Path, smoothing: float) -> None:
    recorder, kept = Recorder(), Kept()
    callback = SharedSeedCallback(Settings(number=0), row_losses=kept, on_step=recorder)
    steps = {"max_steps": 5, "label_smoothing_factor": smoothing}
    trainer_of(tmp_path, judge(3), callback, judged(3), **steps).train()
    assert len(kept.told) == 5 * (1 + 4), "at the weights, and along each direction"
    assert all(losses.shape == (8,) and labels is None for losses, labels in kept.told)
    assert callback.session is not None
    assert callback.session.row_losses is kept
    if not smoothing:
        here = [float(losses.mean()) for losses, _ in kept.told[::5]]
        assert [step.loss for step in recorder.steps] == pytest.approx(here, rel=0.05)


@pytest.mark.parametrize("why", ["a loss of its own", "tokens", "a reward", "numbers", "whole numbers"])
def test_a_trainer_whose_rows_are_not_classes_of_a_models_own_loss_tells_none(why: str, tmp_path: Path) -> None:
    reward = (lambda outputs, inputs: outputs.logits.mean()) if why == "a reward" else None
    kept = Kept()
    callback = SharedSeedCallback(Settings(number=0), reward=reward, row_losses=kept)
    model, data = (models.llama(), rows()) if why == "tokens" else (judge(3), judged(3))
    if "numbers" in why:
        model = judge(1)
        model.config.problem_type = "regression"
        data = [row | {"labels": row["labels"] if "whole" in why else row["labels"].float()} for row in data]
    given = {"compute_loss_func": focal} if why == "a loss of its own" else {}
    trainer = trainer_of(tmp_path, model, callback, data, trainer=given, max_steps=2)
    trainer.train()
    assert kept.told == []


def test_a_lightning_module_may_tell_its_rows(tmp_path: Path) -> None:
    class Telling(lit.Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            logits = self.model(batch[0])
            losses = nn.functional.cross_entropy(logits, batch[1], reduction="none")
            self.trainer.strategy.row_losses.note(losses)
            return losses.mean()

    found: list[tuple[float, ...]] = []
    strategy = SharedSeedStrategy(Settings(number=0), on_step=lambda session, _: found.append(known(session)))
    lit.trainer_of(tmp_path, strategy, max_steps=3).fit(Telling(), lit.batches(lit.table()))
    assert len(found) == 3
    assert all(told for told, *_ in found)


def known(session: Session) -> tuple[float, ...]:
    """Whether rows have told a session, and the chances of each share."""
    learnt = session.snapshot().learnt
    return learnt[2], *learnt[5 : 5 + len(SHARES)]

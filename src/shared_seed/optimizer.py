"""What is taken from a torch optimizer: learning rates and weight decay, by parameter. It is never stepped, so
it never allocates state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from shared_seed.errors import ModelError
from shared_seed.messages import as_float32

NEGLIGIBLE_DECAY = 1e-3
"""Weight decay that would shrink the weights by less than this part of themselves over the whole run is left out:
through projected gradients it would bring more noise than effect.
"""

_TOLERANCE = 1e-4
"""By how much of itself a ratio of learning rates may move, as schedulers round."""


@dataclass(frozen=True)
class Groups:
    """Learning rates and weight decay by parameter name.

    Attributes:
        rates: multiples, float32 numbers, of the learning rate that messages carry.
        decays: coefficients of weight decay as in torch, where they are not zero.
        notices: one line each, for the user to see at the start.
    """

    rates: dict[str, float]
    decays: dict[str, float]
    notices: tuple[str, ...]
    _reference: int
    _ratios: tuple[float, ...]
    _trained: tuple[int, ...]
    _base: float

    @classmethod
    def of(cls, optimizer: Optimizer, model: nn.Module, rounds: int, *, found: bool = False) -> Groups:
        """Read an optimizer that a Trainer has set up.

        Args:
            optimizer: any but LBFGS.
            model: whose parameter names are used; parameters that it does not have are left out.
            rounds: how many steps will be made, which decides whether weight decay matters.
            found: the learning rate is found, and the optimizer's its schedule, which the user is to know.

        Raises:
            ModelError: the optimizer cannot be used.
        """
        check_usable([optimizer])
        names = {id(p): name for name, p in model.named_parameters()}
        bases = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        reference = next((i for i, base in enumerate(bases) if base), 0)
        ratios = tuple(as_float32(base / bases[reference]) if bases[reference] else 1.0 for base in bases)
        rates: dict[str, float] = {}
        decays: dict[str, float] = {}
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            for name in (names[id(p)] for p in group["params"] if id(p) in names):
                rates[name] = ratio
                if group.get("weight_decay"):
                    decays[name] = float(group["weight_decay"])
        shrinking = max((rates[n] * decay for n, decay in decays.items()), default=0.0) * bases[reference] * rounds
        notices = (_about_rates(optimizer, found), _about_decay(shrinking, rounds))
        if shrinking < NEGLIGIBLE_DECAY:
            decays = {}
        shown = tuple(notice for notice in notices if notice)
        return cls(rates, decays, shown, reference, ratios, _trained(optimizer), bases[reference])

    def hold(self, optimizer: Optimizer) -> bool:
        """Whether the same parameters are still trained, at the same ratios of their learning rates."""
        groups = optimizer.param_groups
        if _trained(optimizer) != self._trained or len(groups) != len(self._ratios):
            return False
        now = self.learning_rate(optimizer)
        pairs = zip(groups, self._ratios, strict=True)
        return all(abs(g["lr"] - ratio * now) <= _TOLERANCE * ratio * now for g, ratio in pairs)

    @property
    def base(self) -> float:
        """What the reference group began with: learning rates are a schedule in parts of it."""
        return self._base

    def learning_rate(self, optimizer: Optimizer) -> float:
        """What a message carries now."""
        return float(optimizer.param_groups[self._reference]["lr"])


def check_usable(optimizers: Sequence[Any]) -> None:
    """Make sure that there is one optimizer, and that its steps are for us to make.

    Raises:
        ModelError: there is none, or more, or it evaluates the loss by itself.
    """
    wanted = (
        "expected one optimizer such as torch.optim.SGD(parameters, lr=1e-3), for its learning rate and schedule"
    )
    if any(isinstance(optimizer, LBFGS) for optimizer in optimizers):
        raise ModelError(f"LBFGS searches along lines of its own, which shared-seed cannot do; {wanted}")
    if len(optimizers) != 1 or not getattr(optimizers[0], "param_groups", None):
        names = ", ".join(type(optimizer).__name__ for optimizer in optimizers) or "none"
        raise ModelError(f"shared-seed makes one kind of step, and got these optimizers: {names}; {wanted}")


def _trained(optimizer: Optimizer) -> tuple[int, ...]:
    return tuple(id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad)


def _about_rates(optimizer: Optimizer, found: bool) -> str:
    name = type(optimizer).__name__
    first = optimizer.param_groups[0]
    moments = name != "SGD" or bool(first.get("momentum"))
    unused = "; its moments are not used and take no memory" if moments else ""
    if found:
        return (
            f"shared-seed finds the learning rate, and takes {name}'s as its schedule{unused}; "
            f"Settings(promise=None) goes by {name}'s own rate"
        )
    return f"shared-seed uses {name}'s learning rate and schedule{unused}" if moments else ""


def _about_decay(shrinking: float, rounds: int) -> str:
    if not shrinking:
        return ""
    if shrinking < NEGLIGIBLE_DECAY:
        return (
            f"weight_decay is left out: at the optimizer's learning rate it would shrink the weights by only "
            f"{100 * shrinking:.1g} % over all {rounds} steps"
        )
    return "weight_decay goes into the projected gradients: right on average, and replicas stay identical"

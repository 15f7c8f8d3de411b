"""The trainable parameters of one replica, on their grids."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape as glob_escape
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared_seed.directions import Family
from shared_seed.errors import ModelError
from shared_seed.grid import LIMIT, Grid
from shared_seed.manifest import TensorSpec

PIECE = 1 << 20
"""Elements that are put on their grid at once."""


@dataclass
class Trainable:
    """One trainable parameter.

    ``bound`` is a number of grid units that no element exceeds in magnitude, and stays below ``ceiling``, which
    leaves a dense tensor room for a probe; ``users`` are the modules that
    apply the parameter as a matrix, empty for the dense family; ``rate`` is its learning rate as a multiple of
    what messages carry.
    """

    index: int
    name: str
    parameter: nn.Parameter
    family: Family
    grid: Grid
    bound: int
    ceiling: int
    users: tuple[nn.Module, ...] = ()
    rate: float = 1.0

    @property
    def values(self) -> Tensor:
        """The data, detached, sharing memory."""
        return self.parameter.detach()

    def place(self, grid: Grid, epsilon: float) -> None:
        """Snap the values to a grid, with room for a probe where it is made in place."""
        # In pieces: a large embedding's copies would be the training's peak of memory.
        for piece in torch.split(self.values.view(-1), PIECE):
            piece.copy_(torch.from_numpy(grid.snap(piece.cpu().numpy())))
        self.grid = grid
        self.ceiling = LIMIT if self.family is Family.RANK1 else LIMIT - round(epsilon / grid.unit)
        self.measure()

    def measure(self) -> int:
        """Set the bound to the largest magnitude there is, in units, and return it."""
        self.bound = int(np.ldexp(largest(self.values), self.grid.exponent))
        return self.bound


def largest(values: Tensor) -> float:
    """The largest magnitude in a tensor, 0 for none, NaN where there is one; makes no copy."""
    if not values.numel():
        return 0.0
    low, high = (float(bound) for bound in torch.aminmax(values))
    return max(-low, high)


def as_bytes(values: Tensor) -> memoryview:
    """The raw bytes of a tensor of any dtype, in row-major order."""
    return values.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data


def _short_digest(values: Tensor) -> str:
    return hashlib.sha256(as_bytes(values)).hexdigest()[:16]


def _conv1d_types() -> tuple[type[nn.Module], ...]:
    """GPT-2's Conv1D, recognised without importing transformers."""
    return tuple(
        kind
        for kind in nn.Module.__subclasses__()
        if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"
    )


def is_transposed(module: nn.Module) -> bool:
    """Whether a module's weight is [inputs, outputs], as GPT-2's Conv1D has it."""
    return isinstance(module, _conv1d_types())


def _applies_weight_as_matrix(module: nn.Module) -> bool:
    """Whether a module's forward is that of Linear, Embedding or Conv1D, untouched."""
    kinds: tuple[Any, ...] = (nn.Linear, nn.Embedding, *_conv1d_types())
    for kind in kinds:
        if isinstance(module, kind):
            return type(module).forward is kind.forward
    return False


def _matrix_users(model: nn.Module) -> dict[nn.Parameter, tuple[nn.Module, ...]]:
    """For each parameter that only Linear, Conv1D and Embedding modules own: those modules."""
    users: dict[nn.Parameter, list[nn.Module]] = {}
    excluded: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            # It hands its out_proj's weight to a fused function and never calls the module.
            excluded.add(cast(nn.Parameter, module.out_proj.weight))
        for name, parameter in module.named_parameters(recurse=False):
            if name == "weight" and _applies_weight_as_matrix(module):
                users.setdefault(parameter, []).append(module)
            else:
                excluded.add(parameter)
        if isinstance(module, nn.Embedding) and module.max_norm is not None:
            raise ModelError(
                "an nn.Embedding with max_norm rewrites its weights while it is read, so that replicas would "
                "part; expected max_norm=None; normalise once before training instead"
            )
    return {p: tuple(modules) for p, modules in users.items() if p not in excluded}


def frozen_digest(model: nn.Module, weights: Weights) -> str:
    """A short SHA-256 over everything in the state dict that is not trained: names, dtypes, shapes, bytes."""
    parameters = {id(t.parameter) for t in weights}
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in parameters}
    total = hashlib.sha256()
    for name, values in model.state_dict().items():
        if name not in trained and isinstance(values, Tensor):
            total.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            for part in _plain(values):
                total.update(as_bytes(part))
    return total.hexdigest()[:16]


def _plain(values: Tensor) -> Iterator[Tensor]:
    """The ordinary tensors that a tensor subclass, such as a quantised weight, is made of."""
    if not hasattr(values, "__tensor_flatten__"):
        yield values
        return
    for name in values.__tensor_flatten__()[0]:
        yield from _plain(getattr(values, name))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How trainable parameters are treated, by name, where not all alike.

    Args:
        dense: shell patterns of parameters that get dense signs whatever module owns them.
        rates: learning rate of each parameter as a multiple of what messages carry; parameters that are not
            named are not trained. Without it, all that require grad are, at 1.
        exponents: of grids that are given, as by a log, instead of chosen by the parameter's size.
    """

    dense: tuple[str, ...] = ()
    rates: Mapping[str, float] | None = None
    exponents: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, specs: Sequence[TensorSpec]) -> Choice:
        """The choice that led to these specifications."""
        return cls(
            dense=tuple(glob_escape(t.name) for t in specs if t.family is Family.DENSE),
            rates={t.name: t.rate for t in specs},
            exponents={t.name: t.exponent for t in specs},
        )

    def grid(self, name: str, values: Tensor, epsilon: float) -> Grid:
        """The grid of a parameter."""
        if name in self.exponents:
            return Grid(self.exponents[name])
        return Grid.covering(largest(values), epsilon)


ALL = Choice()
"""Train everything that requires grad."""


@dataclass
class Weights:
    """All trainable parameters of a model, in the order of ``model.named_parameters()``."""

    tensors: list[Trainable] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module, epsilon: float, choice: Choice = ALL) -> Weights:
        """Snap a model's trainable parameters to their grids, in place.

        Args:
            model: any module; at least one parameter must require grad, all of them in float32.
            epsilon: the probe's step, a power of two; it must lie on every grid.
            choice: how parameters are treated.

        Raises:
            ModelError: nothing is trainable, or something trainable is not float32.
            GridError: some parameter cannot be put on a grid.
        """
        users = _matrix_users(model)
        weights = cls()
        for name, parameter in model.named_parameters():
            chosen = choice.rates is None or name in choice.rates
            if parameter.requires_grad and chosen:
                weights._add(name, parameter, users.get(parameter, ()), epsilon, choice)
        if not weights.tensors:
            raise ModelError(
                "no parameter of the model requires grad and is in the optimizer; expected at least one to train"
            )
        return weights

    def _add(
        self, name: str, parameter: nn.Parameter, users: tuple[nn.Module, ...], epsilon: float, choice: Choice
    ) -> None:
        if parameter.dtype is not torch.float32:
            raise ModelError(
                f"trainable parameter {name!r} is {parameter.dtype}; expected torch.float32, in which updates "
                "are exact; load the model with dtype=torch.float32 and let autocast compute in bf16"
            )
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in choice.dense):
            users = ()
        grid = choice.grid(name, parameter.detach(), epsilon)
        family = Family.RANK1 if users else Family.DENSE
        rate = 1.0 if choice.rates is None else choice.rates[name]
        entry = Trainable(len(self.tensors), name, parameter, family, grid, LIMIT, LIMIT, users, rate)
        entry.place(grid, epsilon)
        self.tensors.append(entry)

    def widen(self, epsilon: float) -> None:
        """Put every parameter on the grid that its size asks for now, wider where it has grown.

        Raises:
            GridError: one has grown so large that a step of epsilon is no longer on its grid.
        """
        for tensor in self.tensors:
            tensor.place(ALL.grid(tensor.name, tensor.values, epsilon), epsilon)

    def __iter__(self) -> Iterator[Trainable]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def exponents(self) -> NDArray[np.int64]:
        """int64 [tensors]: each grid's exponent."""
        return np.array([t.grid.exponent for t in self.tensors], np.int64)

    @property
    def rates(self) -> NDArray[np.float64]:
        """float64 [tensors]: each learning rate as a multiple of what messages carry."""
        return np.array([t.rate for t in self.tensors], np.float64)

    @property
    def count(self) -> int:
        """How many numbers are trained."""
        return sum(t.parameter.numel() for t in self.tensors)

    def specs(self) -> tuple[TensorSpec, ...]:
        """What the manifest says of these parameters."""
        return tuple(
            TensorSpec(
                name=t.name,
                shape=tuple(t.parameter.shape),
                family=t.family,
                exponent=t.grid.exponent,
                digest=_short_digest(t.values),
                rate=t.rate,
            )
            for t in self.tensors
        )

    def digest(self) -> bytes:
        """SHA-256 of the bytes of all trainable parameters, in order."""
        total = hashlib.sha256()
        for t in self.tensors:
            total.update(as_bytes(t.values))
        return total.digest()

"""The trainable parameters of one replica, on their grids."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape as glob_escape
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared_seed import storage
from shared_seed.errors import ManifestMismatchError, ModelError
from shared_seed.grid import LIMIT, Grid
from shared_seed.manifest import TensorSpec
from shared_seed.noise import Family
from shared_seed.offload import Home, homes
from shared_seed.parallel import for_each
from shared_seed.storage import Storage


@dataclass
class Trainable:
    """One trainable parameter.

    ``storage`` has its exact values; ``names`` are all that the model knows it by, ``name`` the first. ``bound``
    is a number of grid units that no element exceeds in magnitude, and stays below ``ceiling``, which leaves
    room for a probe; ``users`` are the modules that apply the parameter as a matrix, empty for the
    dense family; ``rate`` is its learning rate as a multiple of what messages carry.
    """

    index: int
    name: str
    parameter: nn.Parameter
    storage: Storage
    family: Family
    grid: Grid
    bound: int
    ceiling: int
    users: tuple[nn.Module, ...] = ()
    rate: float = 1.0
    names: tuple[str, ...] = ()

    @property
    def values(self) -> Tensor:
        """All exact values as fp32, to look at; a copy where the parameter is not float32."""
        return self.storage.exact()

    @property
    def offloaded(self) -> bool:
        """Whether each forward gets a parameter of its own, with the values of :attr:`storage`."""
        return self.parameter.is_meta

    def place(self, grid: Grid, epsilon: float) -> None:
        """Snap the values to a grid, with room for a probe."""
        # In pieces: a large embedding's copies would be the training's peak of memory.
        for _, piece in self.storage.pieces():
            if piece.device.type == "cpu":
                values = piece.numpy()
                values[...] = grid.snap(values)
            else:
                piece.copy_(torch.from_numpy(grid.snap(piece.cpu().numpy())))
        self.grid = grid
        self.ceiling = LIMIT - round(epsilon / grid.unit)
        self.measure()

    def measure(self) -> int:
        """Set the bound to the largest magnitude there is, in units, and return it."""
        self.bound = int(np.ldexp(self.storage.largest(), self.grid.exponent))
        return self.bound


def as_bytes(values: Tensor) -> memoryview:
    """The raw bytes of a tensor of any dtype, in row-major order."""
    return values.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data


def _short_digest(values: Storage) -> str:
    """Of the exact fp32 values, however they are kept."""
    total = hashlib.sha256()
    for piece in values.read():
        total.update(as_bytes(piece))
    return total.hexdigest()[:16]


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


def _identity(name: str, parameter: nn.Parameter, away: Mapping[str, Home]) -> Hashable:
    """The same for names of the same parameter; tied ones that are offloaded have parted, but not their values."""
    return away[name].lasting(name).data_ptr() if name in away else parameter


def _matrix_users(model: nn.Module, away: Mapping[str, Home]) -> dict[Hashable, tuple[nn.Module, ...]]:
    """For each trainable parameter that only Linear, Conv1D and Embedding modules own: those modules."""
    users: dict[Hashable, list[nn.Module]] = {}
    excluded: set[Hashable] = set()
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        if isinstance(module, nn.MultiheadAttention) and module.out_proj.weight.requires_grad:
            # It hands its out_proj's weight to a fused function and never calls the module.
            weight = cast(nn.Parameter, module.out_proj.weight)
            excluded.add(_identity(f"{start}out_proj.weight", weight, away))
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            identity = _identity(f"{start}{name}", parameter, away)
            if name == "weight" and _applies_weight_as_matrix(module):
                users.setdefault(identity, []).append(module)
            else:
                excluded.add(identity)
        if isinstance(module, nn.Embedding) and module.max_norm is not None:
            raise ModelError(
                "an nn.Embedding with max_norm rewrites its weights while it is read, so that replicas would "
                "part; expected max_norm=None; normalise once before training instead"
            )
    return {p: tuple(modules) for p, modules in users.items() if p not in excluded}


def frozen_digest(model: nn.Module, weights: Weights) -> str:
    """A short SHA-256 over everything in the state dict that is not trained: names, dtypes, shapes, bytes."""
    trained = {name for t in weights for name in t.names}
    away = homes(model)
    total = hashlib.sha256()
    for name, here in model.state_dict().items():
        if name not in trained and isinstance(here, Tensor):
            values = away[name].values() if name in away else here
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
        low: of bfloat16 parameters, the low bits that belong to their values; none by default.
    """

    dense: tuple[str, ...] = ()
    rates: Mapping[str, float] | None = None
    exponents: Mapping[str, int] = field(default_factory=dict)
    low: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, specs: Sequence[TensorSpec]) -> Choice:
        """The choice that led to these specifications."""
        return cls(
            dense=tuple(glob_escape(t.name) for t in specs if t.family is Family.DENSE),
            rates={t.name: t.rate for t in specs},
            exponents={t.name: t.exponent for t in specs},
        )

    def grid(self, name: str, values: Storage, epsilon: float) -> Grid:
        """The grid of a parameter."""
        if name in self.exponents:
            return Grid(self.exponents[name])
        return Grid.covering(values.largest(), epsilon)

    def storage(self, name: str, source: Tensor) -> Storage:
        """How a parameter's exact values are kept.

        Raises:
            ModelError: the parameter's dtype cannot be trained.
            ManifestMismatchError: there are low bits, and they belong to something else.
        """
        if source.dtype not in storage.DTYPES:
            raise ModelError(
                f"trainable parameter {name!r} is {source.dtype}; expected torch.float32, in which updates are "
                "exact, or torch.bfloat16, beside which float32's low bits are kept; load the model with "
                "dtype=torch.float32 and let autocast compute in bf16, or with dtype=torch.bfloat16"
            )
        low = self.low.get(name)
        if low is not None and (source.dtype, source.shape, low.dtype) != (torch.bfloat16, low.shape, torch.int16):
            raise ManifestMismatchError(
                f"there are low bits for a torch.bfloat16 parameter {name!r} of shape {tuple(low.shape)}, and it "
                f"is {source.dtype} of shape {tuple(source.shape)}; load the model in the dtype it was trained in"
            )
        return storage.of(source, low)


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
            model: any module; at least one parameter must require grad, all of them in float32 or bfloat16.
            epsilon: the probe's step, a power of two; it must lie on every grid.
            choice: how parameters are treated.

        Raises:
            ModelError: nothing is trainable, or something trainable has another dtype or lies on disk.
            GridError: some parameter cannot be put on a grid.
        """
        away = homes(model)
        users = _matrix_users(model, away)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        aliases: dict[Hashable, list[str]] = {}
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                aliases.setdefault(_identity(name, parameter, away), []).append(name)
        weights = cls()
        for identity, (name, *others) in aliases.items():
            if choice.rates is not None and name not in choice.rates:
                continue
            source = away[name].lasting(name) if name in away else parameters[name]
            entry = weights._entry(name, parameters[name], source, users.get(identity, ()), choice)
            entry.names = (name, *others)
            weights.tensors.append(entry)
        if not weights.tensors:
            raise ModelError(
                "no parameter of the model requires grad and is in the optimizer; expected at least one to train"
            )
        weights._place(choice, epsilon)
        return weights

    def _entry(
        self,
        name: str,
        parameter: nn.Parameter,
        source: Tensor,
        users: tuple[nn.Module, ...],
        choice: Choice,
    ) -> Trainable:
        """The entry of a parameter whose data is in ``source``, not yet on its grid."""
        if source.is_meta:
            raise ModelError(
                f"trainable parameter {name!r} is on the meta device, without values; expected a model that is "
                "loaded; use from_pretrained, call get_peft_model before weights are offloaded, or freeze it"
            )
        kept = choice.storage(name, source)
        if not source.is_contiguous():
            source.data = source.data.contiguous()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in choice.dense):
            users = ()
        family = Family.RANK1 if users else Family.DENSE
        rate = 1.0 if choice.rates is None else choice.rates[name]
        return Trainable(len(self.tensors), name, parameter, kept, family, Grid(0), LIMIT, LIMIT, users, rate)

    def _place(self, choice: Choice, epsilon: float) -> None:
        """Put every parameter on its grid."""
        self._share(lambda tensor: tensor.place(choice.grid(tensor.name, tensor.storage, epsilon), epsilon))

    def _share(self, work: Callable[[Trainable], None]) -> None:
        """Do something with every tensor that only its own memory and numpy take part in, on all cores."""
        for_each(work, self.tensors, torch.get_num_threads())

    def widen(self, epsilon: float) -> None:
        """Put every parameter on the grid that its size asks for now, wider where it has grown.

        Raises:
            GridError: one has grown so large that a step of epsilon is no longer on its grid.
        """
        self._place(ALL, epsilon)

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
        digests: dict[int, str] = {}
        self._share(lambda tensor: digests.update({tensor.index: _short_digest(tensor.storage)}))
        return tuple(
            TensorSpec(
                name=t.name,
                shape=tuple(t.parameter.shape),
                family=t.family,
                exponent=t.grid.exponent,
                digest=digests[t.index],
                rate=t.rate,
            )
            for t in self.tensors
        )

    def digest(self) -> bytes:
        """SHA-256 of the exact fp32 values of all trainable parameters, in order."""
        total = hashlib.sha256()
        for t in self.tensors:
            for piece in t.storage.read():
                total.update(as_bytes(piece))
        return total.digest()

    def low(self) -> dict[str, Tensor]:
        """The low bits of the parameters that do not hold all of their values; themselves, not copies."""
        return {t.name: t.storage.low for t in self.tensors if t.storage.low is not None}

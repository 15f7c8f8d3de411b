"""A model at ``theta + eps z`` and ``theta - eps z`` without copies of its weights.

Rank-1 directions act on activations: with ``z = u v^T`` a Linear's output moves by ``s * (x @ v) * u``, and its
weight is not written. That costs by the token; where there are so many that three passes over the matrix cost
less, the direction is added in place, as dense ones always are: on the grid, so that taking it away again restores
the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from shared_seed import exact
from shared_seed.errors import ModelError
from shared_seed.interrupts import deferred
from shared_seed.noise import Family, Sample, device
from shared_seed.weights import Trainable, Weights, is_transposed

_LOOKS_ONLY = frozenset({"size", "dim", "numel", "stride", "is_floating_point", "is_complex"})


class _Uses(TorchFunctionMode):
    """Counts how often each rank-1 parameter is read by a torch function."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.seen = {id(t.parameter): 0 for t in weights if t.family is Family.RANK1}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        # A property such as .shape only looks; one such as .T hands the values on.
        looks = name in _LOOKS_ONLY or (name == "__get__" and not isinstance(result, Tensor))
        if not looks:
            self._count((*args, *(kwargs or {}).values()))
        return result

    def _count(self, values: Iterable[Any]) -> None:
        for value in values:
            if id(value) in self.seen:
                self.seen[id(value)] += 1
            elif isinstance(value, list | tuple):
                self._count(value)


class _Factors:
    """The sign vectors ``u`` [rows] and ``v`` [columns] of one matrix, where and as its modules compute."""

    def __init__(self, u: Tensor, v: Tensor) -> None:
        self._drawn = (u, v)
        self._cast: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def of(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both, in a dtype, in which signs are exact whatever it is, and on a device."""
        kind = (dtype, device)
        if kind not in self._cast:
            u, v = self._drawn
            self._cast[kind] = (u.to(device, dtype), v.to(device, dtype))
        return self._cast[kind]


def _add_outer(out: Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``out += scale * left[..., None] * right``, in place; ``out`` [..., n], ``left`` [...], ``right`` [n]."""
    if out.dtype in (torch.bfloat16, torch.float16) and out.is_contiguous():
        # As a matrix product of depth one, which low precision is built for: half the time of addcmul there.
        out.view(-1, out.shape[-1]).addmm_(left.reshape(-1, 1), right.unsqueeze(0), alpha=scale)
        return out
    return out.addcmul_(left.unsqueeze(-1), right, value=scale)


def _projected(given: Tensor, into: Tensor) -> Tensor:
    """``given @ into``; [..., n] and [n] give [...]."""
    # Autocast would cast all that is given once more, for one column.
    with torch.autocast(given.device.type, enabled=False):
        # A column at the right, not a vector: bf16's product of matrix and vector is slow on CPUs.
        return (given.reshape(-1, given.shape[-1]) @ into.unsqueeze(-1)).view(given.shape[:-1])


READ, WRITTEN = 0.6, 0.27
"""What hooks cost at both sides for each element of a Linear's input and output, in terms of what writing a weight
costs at three moves. Measured on two Zen 4 cores (docs/experiments.md); they decide about speed alone.
"""


def _is_cheaper_written(tensor: Trainable, tokens: int) -> bool:
    """Whether a matrix's direction costs less in its weights than in the activations of so many tokens."""
    # bf16 parameters would round the direction off.
    if tensor.storage.low is not None or all(isinstance(module, nn.Embedding) for module in tensor.users):
        return False
    rows, columns = tensor.storage.shape
    if any(is_transposed(module) for module in tensor.users):
        rows, columns = columns, rows
    return tokens * (READ * columns + WRITTEN * rows) > rows * columns


class Perturbation:
    """Moves a model along one direction at a time.

    ``sign`` is +1, -1 or, for the model as it is, 0.
    """

    def __init__(self, weights: Weights, epsilon: float) -> None:
        self.weights = weights
        self.epsilon = epsilon
        self._sign = 0
        self._written = 0
        self._sample = Sample(0, 0, 0)
        self._factors: dict[int, _Factors] = {}
        self._fired: dict[int, int] = {}
        self._in_place: dict[int, Trainable] = {}
        self._decided = False
        self._handles: list[RemovableHandle] = []
        self._ungraded: list[nn.Parameter] = []
        self._checked = False

    @contextmanager
    def along(self, sample: Sample) -> Iterator[Callable[[int], None]]:
        """Yields a function that puts the model at a sign; leaves it as it was, whatever happens inside."""
        self.settle()
        self._sample = sample
        try:
            self._attach()
            yield self._move
        finally:
            self.settle()

    def settle(self) -> None:
        """Bring the model back to sign 0 without hooks, wherever an interrupt may have left it."""
        with deferred():
            self._move(0)
            while self._handles:
                self._handles.pop().remove()
            while self._ungraded:
                self._ungraded.pop().requires_grad_(True)
            self._factors.clear()
            self._in_place.clear()

    def _attach(self) -> None:
        """Draw the rank-1 factors and hang the hooks that apply them."""
        with deferred():
            self._fired = dict.fromkeys(range(len(self.weights)), 0)
            matrices = {
                t.index: (t.storage.device, t.storage.shape) for t in self.weights if t.family is Family.RANK1
            }
            drawn = device.rank1(self._sample, matrices)
            self._factors = {index: _Factors(u, v) for index, (u, v) in drawn.items()}
            self._decided = False
            for tensor in self.weights:
                if tensor.family is Family.DENSE:
                    self._write_at_moves(tensor)
                for module in tensor.users:
                    hook = self._hook(tensor, module)
                    self._handles.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))

    def _write_at_moves(self, tensor: Trainable) -> None:
        """From now on, every move writes this tensor."""
        self._in_place[tensor.index] = tensor
        # Autocast keeps casts of what requires grad: right for matrices that are not written, but this one would
        # be read at the wrong side. An offloaded one is another at each forward.
        if not tensor.offloaded:
            self._ungraded.append(tensor.parameter)
            tensor.parameter.requires_grad_(False)

    def _decide(self, tokens: int) -> None:
        """Write the matrices for which so many tokens make that cheaper.

        It depends on the batch alone, so that a run that resumes measures what it would have without a break.
        """
        self._decided = True
        chosen = [t for t in self.weights if t.index not in self._in_place and _is_cheaper_written(t, tokens)]
        if not chosen:
            return
        # What we do to parameters here is no use by the model.
        with deferred(), torch.no_grad(), torch._C.DisableTorchFunction():
            exact.shift(chosen, self._sample, self._sign * self.epsilon)
            for tensor in chosen:
                self._write_at_moves(tensor)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """On its first use, make sure that the hooks see every use of every rank-1 parameter.

        Raises:
            ModelError: the model reads a matrix past the module that owns it.
        """
        if self._checked:
            yield
            return
        before = dict(self._fired)
        with _Uses(self.weights) as uses:
            yield
        for tensor in self.weights:
            if tensor.family is not Family.RANK1 or tensor.offloaded:
                continue  # An offloaded matrix is there for its own module only.
            fired = self._fired[tensor.index] - before[tensor.index]
            if uses.seen[id(tensor.parameter)] != fired:
                raise ModelError(
                    f"the model uses parameter {tensor.name!r} outside the module that owns it, where its "
                    f"direction cannot be applied; expected only calls of that module; pass "
                    f"dense=[{tensor.name!r}] so that it gets a direction in place"
                )
        self._checked = True

    def _move(self, sign: int) -> None:
        """Write the tensors in place at the given sign; a move that is interrupted is finished first."""
        with deferred(), torch.no_grad():
            step = (sign - self._written) * self.epsilon
            if step != 0:
                exact.shift(self._in_place.values(), self._sample, step)
            self._written = self._sign = sign

    def _hook(self, tensor: Trainable, module: nn.Module) -> Callable[..., Tensor | None]:
        embeds, transposed, index = isinstance(module, nn.Embedding), is_transposed(module), tensor.index

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor | None:
            self._fired[index] += 1
            if self._sign == 0 or index in self._in_place:
                return None
            # Where a device_map lays modules on several devices, what goes in may still be on another one.
            given = (args[0] if args else next(iter(kwargs.values()))).to(out.device)
            scale, factors = self._sign * self.epsilon, self._factors[index]
            if embeds:
                rows, columns = factors.of(out.dtype, out.device)
                moved = _add_outer(out, rows[given], columns, scale)
            else:
                rows, columns = factors.of(given.dtype, out.device)
                into, across = (rows, columns) if transposed else (columns, rows)
                moved = _add_outer(out, _projected(given, into).to(out.dtype), across.to(out.dtype), scale)
            if not self._decided:
                self._decide(out.numel() // max(1, out.shape[-1]))
            return moved

        return hook

"""A model at ``theta + eps z`` and ``theta - eps z`` without copies of its weights.

Rank-1 directions act on activations: with ``z = u v^T`` a Linear's output moves by ``s * (x @ v) * u``, and
its weight is never written. Dense directions are added in place, on the grid, so taking them away again
restores the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from shared_seed.directions import Family
from shared_seed.errors import ModelError
from shared_seed.interrupts import deferred
from shared_seed.noise import BLOCK, Purpose, Sample, device
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
        self._handles: list[RemovableHandle] = []
        self._ungraded: list[nn.Parameter] = []
        self._checked = False

    @contextmanager
    def along(self, sample: Sample) -> Iterator[Callable[[int], None]]:
        """Yields a function that puts the model at a sign; leaves it as it was, whatever happens inside."""
        self.settle()
        self._sample = sample
        # Casts that an autocast around all this has kept may be from before the last update.
        torch.clear_autocast_cache()
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

    def _attach(self) -> None:
        """Draw the rank-1 factors and hang the hooks that apply them."""
        with deferred():
            self._fired = dict.fromkeys(range(len(self.weights)), 0)
            matrices = {
                t.index: (t.storage.device, t.storage.shape) for t in self.weights if t.family is Family.RANK1
            }
            drawn = device.rank1(self._sample, matrices)
            self._factors = {index: _Factors(u, v) for index, (u, v) in drawn.items()}
            for tensor in self.weights:
                if tensor.family is Family.DENSE:
                    # Autocast keeps casts of what requires grad: right for matrices, which are not written, but
                    # a dense tensor would be read at the wrong side. An offloaded one is another at each forward.
                    if tensor.offloaded:
                        continue
                    self._ungraded.append(tensor.parameter)
                    tensor.parameter.requires_grad_(False)
                    continue
                for module in tensor.users:
                    hook = self._hook(tensor, module)
                    self._handles.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))

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
        """Write the dense tensors of the given sign; one that is interrupted is finished first."""
        with deferred(), torch.no_grad():
            step = (sign - self._written) * self.epsilon
            if step != 0:
                for tensor in self.weights:
                    if tensor.family is Family.DENSE:
                        for start, piece in tensor.storage.pieces():
                            device.shift(piece, self._sample, tensor.index, Purpose.DENSE, step, start // BLOCK)
            self._written = self._sign = sign

    def _hook(self, tensor: Trainable, module: nn.Module) -> Callable[..., Tensor | None]:
        embeds, transposed, index = isinstance(module, nn.Embedding), is_transposed(module), tensor.index

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor | None:
            self._fired[index] += 1
            if self._sign == 0:
                return None
            # Where a device_map lays modules on several devices, what goes in may still be on another one.
            given = (args[0] if args else next(iter(kwargs.values()))).to(out.device)
            scale = self._sign * self.epsilon
            if embeds:
                rows, columns = self._factors[index].of(out.dtype, out.device)
                return _add_outer(out, rows[given], columns, scale)
            rows, columns = self._factors[index].of(given.dtype, out.device)
            into, across = (rows, columns) if transposed else (columns, rows)
            # Autocast would cast all that is given once more, for one column.
            with torch.autocast(given.device.type, enabled=False):
                # A column at the right, not a vector: bf16's product of matrix and vector is slow on CPUs.
                projected = (given.reshape(-1, given.shape[-1]) @ into.unsqueeze(-1)).view(given.shape[:-1])
            return _add_outer(out, projected.to(out.dtype), across.to(out.dtype), scale)

        return hook

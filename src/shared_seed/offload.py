"""Weights that are elsewhere while no forward needs them, as accelerate leaves them (``device_map``, offloading).

Such a module carries ``_hf_hook``, which puts a fresh parameter into the module before each forward, and one
without data, on the meta device, after it. The values lie in the hook's ``weights_map``: a dictionary of tensors
on the CPU, or a reader of files. They are known by these names, so that nothing is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn

from shared_seed.errors import ModelError


@dataclass(frozen=True)
class Home:
    """Where the values of one offloaded tensor lie; ``block`` if it comes and goes with those of a whole block."""

    map: Mapping[str, Tensor]
    key: str
    block: bool

    def values(self) -> Tensor:
        """The values; those on disk are read."""
        return self.map[self.key]

    def lasting(self, name: str) -> Tensor:
        """The values, where changes to them last.

        Raises:
            ModelError: they are read from disk for each forward; or others than the owner can read them meanwhile.
        """
        if self.block:
            raise ModelError(
                f"trainable parameter {name!r} is offloaded with a whole block of modules, where use outside the "
                "module that owns it would not be seen; expected each module by itself; leave "
                "preload_module_classes out"
            )
        values = self.map[self.key]
        if self.map[self.key] is not values:
            raise ModelError(
                f"trainable parameter {name!r} is offloaded to disk, where an update would be lost; expected "
                "trainable weights in memory; choose a device_map or max_memory leaving them on GPU or CPU, or "
                "freeze them and train an adapter (LoRA)"
            )
        return values


def homes(model: nn.Module) -> dict[str, Home]:
    """Where the values of a model's offloaded parameters and buffers lie, by name in the model."""
    found: dict[str, Home] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for hook in _hooks(getattr(module, "_hf_hook", None)):
            block = bool(getattr(hook, "place_submodules", False))
            for name in _away(module, block):
                found[f"{prefix}.{name}" if prefix else name] = Home(hook.weights_map, name, block)
    return found


def _hooks(hook: Any) -> Iterator[Any]:
    """The hooks, in a hook that may be a sequence of some, that take weights away."""
    for part in getattr(hook, "hooks", (hook,)):
        if getattr(part, "offload", False) and getattr(part, "weights_map", None) is not None:
            yield part


def _away(module: nn.Module, recurse: bool) -> Iterator[str]:
    """Names of the tensors in a module that have no data now."""
    parameters = module.named_parameters(recurse=recurse, remove_duplicate=False)
    buffers = module.named_buffers(recurse=recurse, remove_duplicate=False)
    return (name for name, values in chain(parameters, buffers) if values.is_meta)

"""What a user's code keeps count of while it evaluates a loss.

A probe evaluates the loss twice where backprop does once. Counters, lists of outputs and metrics that live on
the model or the trainer would count twice, so what the second evaluation has done to them is taken back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_MAPPINGS = (dict, defaultdict, OrderedDict, Counter)
_SEQUENCES = (list, deque)
_CONTAINERS = (*_MAPPINGS, *_SEQUENCES, set)

_MODULE_PARTS = frozenset(vars(nn.Module()))
"""What torch itself keeps in a module: parameters, buffers and hooks, which are others' to restore."""

MOST_DEEP = 4
"""How deep containers inside containers are followed."""


@contextmanager
def untouched(owners: Iterable[Any], data: Collection[str] = ()) -> Iterator[None]:
    """Take back, afterwards, what happens inside to the attributes of some objects.

    Attributes that were set, added or deleted are as before; built-in containers in them and in their classes, and
    the tensors of a metric's state, have their contents back. Other objects are not looked into.

    Args:
        owners: modules, trainers and the like; each with its attributes in ``__dict__``.
        data: names of attributes whose contents are not looked into, since they are large and only read.
    """
    owners = list(owners)
    kept = [(owner.__dict__, _attributes(owner, data)) for owner in owners]
    shared = [(value, _contents(value, False, MOST_DEEP)) for value in _of_classes({type(o) for o in owners})]
    try:
        yield
    finally:
        for attributes, saved in kept:
            for name in [n for n in attributes if n not in saved and n not in _MODULE_PARTS]:
                del attributes[name]
            for name, (value, contents) in saved.items():
                _restore(value, contents)
                attributes[name] = value
        for value, contents in shared:
            _restore(value, contents)


def _attributes(owner: Any, data: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Each attribute's value, and what it contains."""
    skipped = _MODULE_PARTS if isinstance(owner, nn.Module) else frozenset()
    # torchmetrics names the attributes that are a metric's state so, and adds to their tensors in place.
    states = owner.__dict__.get("_defaults")
    state_names = states if isinstance(states, dict) else {}
    return {
        name: (value, _contents(value, name in state_names, 0 if name in data else MOST_DEEP))
        for name, value in owner.__dict__.items()
        if name not in skipped
    }


def _of_classes(classes: Iterable[type]) -> Iterator[Any]:
    """The containers that classes keep for all their instances."""
    for kind in classes:
        for base in kind.__mro__:
            for name, value in vars(base).items():
                if type(value) in _CONTAINERS and not name.startswith("__"):
                    yield value


def _contents(value: Any, is_state: bool, depth: int) -> Any:
    """What is needed to restore a container, or None for what is kept by reference."""
    if isinstance(value, Tensor):
        return value.detach().clone() if is_state else None
    if depth == 0:
        return None
    kind = type(value)
    if kind in _MAPPINGS:
        return [(key, item, _contents(item, is_state, depth - 1)) for key, item in value.items()]
    if kind in _SEQUENCES:
        return [(None, item, _contents(item, is_state, depth - 1)) for item in value]
    return set(value) if kind is set else None


def _restore(value: Any, contents: Any) -> None:
    """Give a container, or a metric's tensor, its contents back."""
    if contents is None:
        return
    kind = type(value)
    if isinstance(value, Tensor):
        value.detach().copy_(contents)
    elif kind is set:
        if value != contents:
            value.clear()
            value.update(contents)
    else:
        for _, item, inner in contents:
            _restore(item, inner)
        if kind in _MAPPINGS:
            _refill_mapping(value, contents)
        elif [id(item) for item in value] != [id(item) for _, item, _ in contents]:
            value.clear()
            value.extend(item for _, item, _ in contents)


def _refill_mapping(value: Any, contents: list[tuple[Any, Any, Any]]) -> None:
    now = [(key, id(item)) for key, item in value.items()]
    if now != [(key, id(item)) for key, item, _ in contents]:
        value.clear()
        for key, item, _ in contents:
            value[key] = item

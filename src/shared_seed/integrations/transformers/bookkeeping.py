"""What a Trainer counts while it computes a loss, so that the two evaluations of a probe count as one."""

from __future__ import annotations

from collections import deque
from typing import Any

_DEEPEST = 4
_LARGEST = 4096
"""Containers with more entries are data, not counts, and are left alone."""

_DATA = frozenset({"train_dataset", "eval_dataset"})


class Bookkeeping:
    """The attributes of an object, and the lists, dicts, sets and deques in them, as they stand.

    TRL's trainers collect metrics and count tokens in ``compute_loss``, and so do many subclasses; nothing names
    what they write. So everything that is plain is noted: an attribute that is bound to something else later is
    bound back, a container that has been changed gets its entries back. Objects are not looked into.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._bound = dict(vars(owner))
        self._containers: list[tuple[Any, Any]] = []
        self._noted: set[int] = set()
        for name, value in self._bound.items():
            if name not in _DATA:
                self._note(value, 0)

    def _note(self, value: Any, depth: int) -> None:
        if not isinstance(value, list | dict | set | deque) or depth == _DEEPEST:
            return
        if len(value) > _LARGEST or id(value) in self._noted:
            return
        self._noted.add(id(value))
        entries = dict(value) if isinstance(value, dict) else list(value)
        self._containers.append((value, entries))
        for entry in entries.values() if isinstance(entries, dict) else entries:
            self._note(entry, depth + 1)

    def restore(self) -> None:
        """Bring everything back to how it stood."""
        attributes = vars(self._owner)
        for name in [name for name in attributes if name not in self._bound]:
            del attributes[name]
        for name, value in self._bound.items():
            if attributes.get(name, self) is not value:
                attributes[name] = value
        for container, entries in self._containers:
            if not _same(container, entries):
                _refill(container, entries)


def _same(container: Any, entries: Any) -> bool:
    if len(container) != len(entries):
        return False
    if isinstance(container, dict):
        return all(key in container and container[key] is value for key, value in entries.items())
    if isinstance(container, set):
        return all(entry in container for entry in entries)
    return all(now is before for now, before in zip(container, entries, strict=True))


def _refill(container: Any, entries: Any) -> None:
    container.clear()
    if isinstance(container, list | deque):
        container.extend(entries)
    else:
        container.update(entries)

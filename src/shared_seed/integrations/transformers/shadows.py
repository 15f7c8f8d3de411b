"""Methods replaced on one instance, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Shadows:
    """Attributes laid over those of one object; what was there is there again afterwards."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._before: dict[str, Any] = {}
        self._absent: set[str] = set()

    def lay(self, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace a method by what ``make`` builds from it; one that the object does not have is left out."""
        own = getattr(self._owner, name, None)
        if own is None:
            return
        if name in self._owner.__dict__:
            self._before.setdefault(name, own)
        else:
            self._absent.add(name)
        setattr(self._owner, name, make(own))

    def lift(self) -> None:
        """Give everything back; harmless when there is nothing left."""
        while self._absent:
            self._owner.__dict__.pop(self._absent.pop(), None)
        while self._before:
            name, own = self._before.popitem()
            setattr(self._owner, name, own)

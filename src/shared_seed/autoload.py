"""Makes ``Trainer(strategy="shared_seed")`` known to Lightning without an import by the user.

Lightning has no entry points for strategies, but ``import torch`` calls those of the group ``torch.backends``:
:func:`install` is one. It leaves an import hook that registers the name as soon as Lightning's strategies are
imported, and then takes itself away. It must never break or slow ``import torch``: only the standard library is
used, and what fails is warned about once. ``import shared_seed`` calls it too, for where
``TORCH_DEVICE_BACKEND_AUTOLOAD=0`` turns such entry points off.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAME = "shared_seed"
"""What the strategy is called in Lightning's registry."""

HOMES = {
    "lightning.pytorch.strategies": "shared_seed.integrations.lightning",
    "pytorch_lightning.strategies": "shared_seed.integrations.pytorch_lightning",
}
"""Lightning's module of strategies, under both of its names: our module with the strategy for it."""


def install() -> None:
    """Register the strategy where Lightning is there already, and as soon as it is imported elsewhere."""
    try:
        for name in HOMES:
            if name in sys.modules:
                register(sys.modules[name])
        waiting = [name for name in HOMES if name not in sys.modules]
        if waiting and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder(waiting))
    except Exception as error:
        _complain(error)


def register(strategies: ModuleType) -> None:
    """Put the name into a Lightning's registry; what is behind it is imported when a Trainer asks for it."""
    registry = getattr(strategies, "StrategyRegistry", None)
    # A module that is still being imported has none yet; the hook comes back to it.
    if registry is None or NAME in registry:
        return
    home = HOMES[strategies.__name__]

    def strategy(**arguments: Any) -> Any:
        return importlib.import_module(home).SharedSeedStrategy(**arguments)

    registry.register(NAME, strategy, description="Shared-seed SPSA: no backprop, one byte a gradient")


def _complain(error: Exception) -> None:
    import warnings

    warnings.warn(
        f'shared-seed could not register strategy="shared_seed" with Lightning ({error!r}); import '
        "shared_seed.integrations.lightning.SharedSeedStrategy and pass an instance instead",
        stacklevel=2,
    )


class _Finder:
    """An import hook that lets others find Lightning's strategies, and sees to it that we hear of them."""

    def __init__(self, waiting: Sequence[str]) -> None:
        self._waiting = set(waiting)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that the other finders give, with a loader that registers us afterwards."""
        if name not in self._waiting:
            return None
        self._waiting.discard(name)
        if not self._waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
        return spec


class _Loader:
    """Another loader that registers the strategy once the module stands."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the inner loader does."""
        made: ModuleType | None = self._inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module as ever, with its own loader, then register."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        try:
            register(module)
        except Exception as error:
            _complain(error)

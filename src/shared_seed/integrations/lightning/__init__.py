"""Lightning, under the name ``lightning.pytorch``; :mod:`shared_seed.integrations.pytorch_lightning` has its other
name. These are the only importers of either.

The strategy ``"shared_seed"`` is registered without an import (:mod:`shared_seed.autoload`); the class is here for
those who want to give it arguments.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SharedSeedStrategy"]


def __getattr__(name: str) -> Any:
    """Import the strategy when it is asked for: the other name of Lightning shares what else is in here."""
    if name != "SharedSeedStrategy":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shared_seed.integrations.lightning.strategy import SharedSeedStrategy

    return SharedSeedStrategy

"""Fine-tune language models on machines that share nothing but a thin wire.

Plugins, imported when first asked for, so that neither framework has to be there::

    from shared_seed import SharedSeedCallback   # transformers.Trainer(callbacks=[SharedSeedCallback()])
    from shared_seed import SharedSeedStrategy   # lightning Trainer(strategy=SharedSeedStrategy())

The weights of a run again, from its log: ``model = shared_seed.from_log("runs/quickstart")``.
"""

from __future__ import annotations

import importlib
from typing import Any

from shared_seed import autoload

__version__ = "0.1.0"

_HOMES = {
    "Settings": "shared_seed.settings",
    "Session": "shared_seed.session",
    "from_log": "shared_seed.replay",
    "SharedSeedError": "shared_seed.errors",
    "SharedSeedCallback": "shared_seed.integrations.transformers",
    "SharedSeedStrategy": "shared_seed.integrations.lightning",
}

__all__ = [
    "Session",
    "Settings",
    "SharedSeedCallback",
    "SharedSeedError",
    "SharedSeedStrategy",
    "__version__",
    "from_log",
]


# Where torch's own loading of extensions is off; otherwise it has been called already, and does nothing.
autoload.install()


def __getattr__(name: str) -> Any:
    """Import a public name from the module that holds it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shared_seed' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

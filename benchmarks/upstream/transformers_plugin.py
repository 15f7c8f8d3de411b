"""A pytest plugin that puts a SharedSeedCallback into every Trainer that transformers' own tests train.

::

    cd a/folder/with/transformers/tests
    PYTHONPATH=.../benchmarks/upstream pytest -p transformers_plugin tests/trainer --junitxml=plugin.xml
    PYTHONPATH=.../benchmarks/upstream pytest -p transformers_plugin --stock tests/trainer --junitxml=stock.xml

The tests are not edited. What is patched is undone at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from transformers import Trainer

from shared_seed.integrations.transformers import SharedSeedCallback

_GONE = ("GlueDataset", "GlueDataTrainingArguments")
"""What a test file of this release imports and the release itself no longer has."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--stock`` leaves the Trainers as they are, for the run that is compared with."""
    parser.addoption("--stock", action="store_true", help="do not add SharedSeedCallback to the Trainers")


def pytest_configure(config: pytest.Config) -> None:
    """Patch for the time of the run."""
    # The package puts a lazy module in its own place while it is imported, so it is looked up late.
    import transformers

    for name in _GONE:
        if not hasattr(transformers, name):
            setattr(transformers, name, None)
            config.add_cleanup(partial(delattr, transformers, name))
    if not config.getoption("--stock"):
        config.add_cleanup(_patch())


def _patch() -> Callable[[], None]:
    """Let every Trainer have a callback of its own when it trains; gives what undoes it.

    Not when it is built, since some tests compare the list of callbacks that it is built with.
    """
    own = Trainer.train

    def train_with_callback(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(callback, SharedSeedCallback) for callback in self.callback_handler.callbacks):
            self.add_callback(SharedSeedCallback())
        return own(self, *args, **kwargs)

    Trainer.train = train_with_callback

    def undo() -> None:
        Trainer.train = own

    return undo

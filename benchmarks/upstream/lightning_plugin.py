"""A pytest plugin for Lightning's own tests: ``-p lightning_plugin`` trains with shared-seed wherever a Trainer
would have chosen its single-device strategy, under both names of Lightning. The tests are not edited.
"""

from __future__ import annotations

import importlib
from typing import Any

PACKAGES = ("lightning.pytorch", "pytorch_lightning")

_undo: list[Any] = []


def pytest_configure(config: Any) -> None:
    """Switch the strategy on."""
    for package in PACKAGES:
        try:
            connector = importlib.import_module(f"{package}.trainer.connectors.accelerator_connector")
        except ImportError:
            continue
        kind, stock = connector._AcceleratorConnector, connector._AcceleratorConnector._choose_strategy
        single = connector.SingleDeviceStrategy

        def choose(self: Any, stock: Any = stock, single: Any = single) -> Any:
            chosen = stock(self)
            return "shared_seed" if type(chosen) is single else chosen

        kind._choose_strategy = choose
        _undo.append((kind, stock))


def pytest_unconfigure(config: Any) -> None:
    """Switch it off."""
    while _undo:
        kind, stock = _undo.pop()
        kind._choose_strategy = stock

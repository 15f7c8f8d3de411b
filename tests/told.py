"""Settings that go by the Trainer's learning rate, with one probe a batch, which tests can count."""

from __future__ import annotations

from typing import Any

from shared_seed.settings import Settings


def as_told(**given: Any) -> Settings:
    """Settings in which only that is as a plugin is not by default."""
    return Settings(**{"promise": None, "directions": 1, **given})

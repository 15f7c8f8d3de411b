"""Lightning; this package is its only importer. Importing it registers the strategy ``"shared_seed"``."""

from shared_seed.integrations.lightning.strategy import SharedSeedStrategy

__all__ = ["SharedSeedStrategy"]

"""The strategy for ``lightning.pytorch``."""

from lightning.pytorch.strategies import ParallelStrategy, SingleDeviceStrategy

from shared_seed.integrations.lightning.peer import PeerStrategy


class SharedSeedStrategy(PeerStrategy, SingleDeviceStrategy, ParallelStrategy):  # type: ignore[misc]  # noqa: D101
    __doc__ = PeerStrategy.__doc__

    package = "lightning.pytorch"
    fabric = "lightning.fabric"

"""The strategy for Lightning under its name ``pytorch_lightning``, which has classes of its own."""

from pytorch_lightning.strategies import ParallelStrategy, SingleDeviceStrategy

from shared_seed.integrations.lightning.peer import PeerStrategy

__all__ = ["SharedSeedStrategy"]


class SharedSeedStrategy(PeerStrategy, SingleDeviceStrategy, ParallelStrategy):  # type: ignore[misc]  # noqa: D101
    __doc__ = PeerStrategy.__doc__

    package = "pytorch_lightning"
    fabric = "lightning_fabric"

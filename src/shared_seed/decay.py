"""Weight decay as part of the projected gradient.

Shrinking weights in place would not commute with messages that come later, so replicas would part. Instead the
gradient of ``sum_j decay_j / 2 * |theta_j|^2`` is projected on the same direction as the loss's:
``sum_j decay_j * <theta_j, z_j>``. Its step is ``-lr * decay * theta`` on average, since ``E[z z^T] = I``: plain
SGD's coupled decay and AdamW's decoupled one (Loshchilov and Hutter 2019, section 2) are the same there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from shared_seed.noise import Family, Purpose, Sample, device
from shared_seed.weights import Trainable, Weights


def projected(weights: Weights, decays: Mapping[str, float], sample: Sample) -> float:
    """The projection of the decay's gradient on a sample's direction.

    Args:
        weights: at sign 0.
        decays: coefficients by parameter name; parameters that are not named do not decay.
        sample: names the direction.
    """
    along = {t.name: _along(t, sample) for t in weights if t.name in decays}
    if not along:
        return 0.0
    # Read all at once: each read makes the host wait for the device.
    home = next(iter(along.values())).device
    values: list[float] = torch.stack([value.to(home) for value in along.values()]).tolist()
    return sum(decays[name] * value for name, value in zip(along, values, strict=True))


def _along(tensor: Trainable, sample: Sample) -> Tensor:
    """``<theta, z>`` of one tensor, on its device."""
    storage = tensor.storage
    total = torch.zeros((), dtype=torch.float32, device=storage.device)
    with torch.autocast(storage.device.type, enabled=False):
        if tensor.family is Family.RANK1:
            u, v = device.rank1(sample, {tensor.index: (storage.device, storage.shape)})[tensor.index]
            for rows, block in storage.rows():
                total += u[rows] @ (block @ v)
            return total
        signs = device.signs(sample, tensor.index, Purpose.DENSE, math.prod(storage.shape), storage.device)
        for start, piece in storage.pieces():
            total += piece @ signs[start : start + len(piece)]
        return total


class Loudness:
    """Compares weight decay with the loss in the first projected gradients.

    The decay's part has a root mean square of ``decay * |theta|``, however small its effect is, and can drown the
    loss's.
    """

    ENOUGH = 16
    """Probes after which there is something to say."""

    def __init__(self) -> None:
        self._probes = 0
        self._loss = 0.0
        self._decay = 0.0

    def note(self, of_loss: float, of_decay: float) -> None:
        """Take in the two parts of a projected gradient."""
        if math.isfinite(of_loss) and self._probes < self.ENOUGH:
            self._probes += 1
            self._loss += of_loss**2
            self._decay += of_decay**2

    @property
    def warning(self) -> str | None:
        """A sentence for the user where the decay is louder than the loss."""
        if self._probes < self.ENOUGH or self._decay <= self._loss:
            return None
        of_loss, of_decay = (math.sqrt(total / self._probes) for total in (self._loss, self._decay))
        return (
            f"projected gradients are mostly weight decay, root mean square {of_decay:.3g} against {of_loss:.3g} "
            "of the loss, so that training learns little; lower weight_decay, or set it to 0"
        )

"""Weight decay as part of the projected gradient.

Shrinking weights in place would not commute with messages that come later, so replicas would part. Instead the
gradient of ``sum_j decay_j / 2 * |theta_j|^2`` is projected on the same direction as the loss's:
``sum_j decay_j * <theta_j, z_j>``. Its step is ``-lr * decay * theta`` on average, since ``E[z z^T] = I``: plain
SGD's coupled decay and AdamW's decoupled one (Loshchilov and Hutter 2019, section 2) are the same there.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from shared_seed import directions
from shared_seed.directions import Family
from shared_seed.noise import Sample
from shared_seed.weights import Trainable, Weights


def projected(weights: Weights, decays: Mapping[str, float], sample: Sample) -> float:
    """The projection of the decay's gradient on a sample's direction.

    Args:
        weights: at sign 0.
        decays: coefficients by parameter name; parameters that are not named do not decay.
        sample: names the direction.
    """
    return sum(decays[t.name] * _along(t, sample) for t in weights if t.name in decays)


def _along(tensor: Trainable, sample: Sample) -> float:
    """``<theta, z>`` of one tensor."""
    shape, threads = tuple(tensor.parameter.shape), torch.get_num_threads()
    device = tensor.parameter.device
    with torch.autocast(device.type, enabled=False):
        if tensor.family is Family.RANK1:
            u, v = (torch.from_numpy(f).to(device) for f in directions.rank1(sample, tensor.index, shape, threads))
            return float(u @ (tensor.values @ v))
        signs = torch.from_numpy(directions.dense(sample, tensor.index, shape, threads)).to(device)
        return float((tensor.values * signs).sum())

"""What the same run would have moved over the wire if peers had exchanged something else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared_seed.manifest import Manifest, TensorSpec

ASSUMED_RANK = 8
"""Of the LoRA adapter that a run without one is compared with; on the query and value projections, as in Hu et
al. 2021 (arXiv 2106.09685), section 4.2.
"""

_PROJECTIONS = (("q_proj", "v_proj"), ("query", "value"), ("c_attn",))
"""Names of the layers that LoRA is usually put on, by family of models; the first that a model has are taken."""


@dataclass(frozen=True)
class Cost:
    """Bytes that all peers together receive in one way of working; ``size`` is what one peer receives at once."""

    name: str
    size: float
    total: float
    how: str
    measured: bool = False


@dataclass(frozen=True)
class Shape:
    """How a run exchanged: how often a peer took part in a round with others in it, and how many peers there were.

    ``steps`` is the sum over rounds with two streams or more of the number of their streams.
    """

    steps: int
    peers: int


def alternatives(manifest: Manifest, shape: Shape) -> list[Cost]:
    """Full gradients, LoRA gradients and the whole model, as received by all peers.

    In each of a peer's steps with others it receives the mean of their gradients once: the least that any way of
    averaging brings it (a ring all-reduce brings ``2 (k - 1) / k`` times as much for *k* peers).
    """
    recipe = manifest.recipe or {}
    width = 2 if recipe.get("weights") == "bf16" else 4
    trained = sum(math.prod(tensor.shape) for tensor in manifest.tensors)
    size = float(width * trained)
    steps = shape.steps
    times = f"{steps:,} steps of a peer in company"
    if recipe.get("lora"):
        rank, layers = _recipe_lora(recipe)
        where = f"the run's own adapter, rank {rank} on {layers}: {trained:,} parameters x {width} bytes x {times}"
        return [
            Cost("LoRA gradients", size, size * steps, where),
            Cost(
                "the adapter, once each",
                size,
                size * shape.peers,
                f"{trained:,} parameters x {width} bytes x {shape.peers} peers: averaged one single time. The "
                "base model is frozen and not in the log, so what full gradients would cost is not known",
            ),
        ]
    costs = [
        Cost("full gradients", size, size * steps, f"{trained:,} parameters x {width} bytes x {times}"),
    ]
    adapter = _adapter(manifest.tensors)
    if adapter is not None:
        count, layers = adapter
        costs.append(
            Cost(
                "LoRA gradients",
                4.0 * count,
                4.0 * count * steps,
                f"an adapter of rank {ASSUMED_RANK} on {layers}, which this run did not have: "
                f"{count:,} parameters x 4 bytes x {times}",
            )
        )
    costs.append(
        Cost(
            "whole model, once each",
            size,
            size * shape.peers,
            f"{trained:,} parameters x {width} bytes x {shape.peers} peers: weights averaged one single time; "
            "averaging them n times costs n times as much",
        )
    )
    return costs


def _recipe_lora(recipe: dict[str, Any]) -> tuple[str, str]:
    """Rank and layers as the recipe in the log says; it may say anything."""
    lora = recipe["lora"] if isinstance(recipe["lora"], dict) else {}
    targets = lora.get("targets")
    layers = ", ".join(map(str, targets))[:200] if isinstance(targets, list | tuple) else "layers not named"
    return str(lora.get("rank", "unknown"))[:20], layers


def _adapter(tensors: Sequence[TensorSpec]) -> tuple[int, str] | None:
    """Parameters of the assumed adapter, and what it is put on; ``None`` for a model without matrices."""
    matrices = [tensor for tensor in tensors if len(tensor.shape) == 2]
    for names in _PROJECTIONS:
        chosen = [t for t in matrices if any(name in t.name.split(".") for name in names)]
        if chosen:
            return _rank_parameters(chosen), " and ".join(names)
    return (_rank_parameters(matrices), "all matrices, since none has a name that is known") if matrices else None


def _rank_parameters(chosen: Sequence[TensorSpec]) -> int:
    """Parameters of A (rank x columns) and B (rows x rank) for each matrix, at most as many as it has itself."""
    return sum(min(ASSUMED_RANK * (t.shape[0] + t.shape[1]), math.prod(t.shape)) for t in chosen)

"""What this strategy cannot do, said in one sentence at the start of ``fit``."""

from __future__ import annotations

from typing import Any

from shared_seed.errors import ModelError
from shared_seed.optimizer import check_usable

USABLE = "expected precision='32-true', 'bf16-mixed' or 'bf16-true'"


def check(trainer: Any, strategy: Any) -> None:
    """Refuse what would fail later or train silently wrong.

    Raises:
        ModelError: names the argument, why it cannot work, and what does.
    """
    if not trainer.lightning_module.automatic_optimization:
        raise ModelError(
            "strategy 'shared_seed' needs automatic optimization, since it takes the place of backward() and "
            "optimizer.step(), which manual optimization calls itself; expected automatic_optimization=True and a "
            "loss returned from training_step"
        )
    check_usable([getattr(o, "optimizer", o) for o in trainer.optimizers])
    precision = str(strategy.precision_plugin.precision)
    if precision in ("16-true", "64-true") or "transformer-engine" in precision:
        raise ModelError(
            f"precision={precision!r} keeps trainable weights neither in float32, in which updates are exact, nor "
            f"in bfloat16, beside which float32's low bits are kept; {USABLE}"
        )
    if precision == "16-mixed":
        raise ModelError(f"precision='16-mixed' scales losses for backprop; {USABLE}")
    if trainer.gradient_clip_val and trainer.gradient_clip_algorithm == "value":
        raise ModelError(
            "strategy 'shared_seed' has no gradients to clip by value; expected gradient_clip_val=None; a byte "
            "bounds the projected gradient by itself"
        )
    if getattr(strategy, "_layer_sync", None) is not None:
        raise ModelError(
            "sync_batchnorm=True needs the activations of all processes at every layer, and peers exchange bytes "
            "only; expected sync_batchnorm=False"
        )


def without_effect(trainer: Any) -> list[str]:
    """What has no effect here, one line each."""
    if trainer.gradient_clip_val:
        return [
            f"gradient_clip_val={trainer.gradient_clip_val} has no effect: shared-seed has no gradients, and a "
            "byte bounds the projected gradient by itself"
        ]
    return []

"""What a Trainer is set up for that projected gradients cannot do, and what they make pointless."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import Trainer

from shared_seed.errors import ModelError
from shared_seed.messages import MOST_CODES

_BACKWARD_OPTIMIZERS = ("lomo", "layerwise")
"""Parts of the names of optimizers that update the weights while gradients are computed."""


def check_usable(trainer: Trainer) -> None:
    """Refuse what would train something else than the user asked for.

    Raises:
        ModelError: says what, and what to use.
    """
    for refusal in _refusals(trainer):
        raise ModelError(refusal)


def _refusals(trainer: Trainer) -> Iterator[str]:
    args = trainer.args
    if args.fp16:
        yield "fp16 scales losses for backprop; expected bf16 or fp32; set bf16=True instead"
    if getattr(trainer, "is_deepspeed_enabled", False):
        yield (
            "DeepSpeed shards gradients and optimizer state, and there are none here; expected a plain Trainer; "
            "leave args.deepspeed out and start one process per device with torchrun"
        )
    if getattr(trainer, "is_fsdp_enabled", False) or getattr(trainer, "is_fsdp_xla_enabled", False):
        yield (
            "FSDP shards the weights, and every peer needs them whole; expected a plain Trainer; leave args.fsdp "
            "out and start one process per device with torchrun"
        )
    sharded = ("is_distributed_loading_by_transformers", "is_tp_enabled")
    if any(getattr(trainer, name, False) for name in sharded):
        yield (
            "the model is sharded over processes, and every peer needs it whole; expected a model loaded without "
            "tp_plan or distributed_config; load it so"
        )
    if args.n_gpu > 1:
        yield (
            f"one process with {args.n_gpu} GPUs splits each batch by DataParallel, whose copies of the model a "
            "probe cannot move; expected one GPU per process; start with torchrun --nproc-per-node "
            f"{args.n_gpu}, or set CUDA_VISIBLE_DEVICES to one GPU"
        )
    name = str(getattr(args.optim, "value", args.optim))
    if any(part in name for part in _BACKWARD_OPTIMIZERS):
        yield (
            f"optim={name!r} updates the weights during a backward pass, and there is none here; expected an "
            "optimizer for its learning rate and schedule; set optim='sgd'"
        )
    if any(group.get("relative_step") for group in trainer.optimizer.param_groups):
        yield (
            "Adafactor with relative_step finds its learning rate in its own steps, and makes none here; expected "
            "a learning rate; use Adafactor(..., lr=1e-3, relative_step=False), or optim='sgd'"
        )
    if args.gradient_accumulation_steps > MOST_CODES:
        yield (
            f"gradient_accumulation_steps={args.gradient_accumulation_steps} would put more than {MOST_CODES} "
            "bytes into a message; expected at most that; use larger batches"
        )


def without_effect(trainer: Trainer, model: Any) -> Iterator[str]:
    """A sentence for each setting that has no effect, or another than with backprop."""
    args = trainer.args
    if args.max_grad_norm not in (0.0, 1.0, None):  # 1.0 is what nobody has asked for.
        yield (
            f"max_grad_norm={args.max_grad_norm:g} has no effect: there is no gradient to clip, and a projected "
            "gradient is bounded by its byte; grad_norm is logged as estimated from the probes"
        )
    if getattr(model, "is_activation_checkpointing", False) or args.gradient_checkpointing:
        yield "gradient checkpointing only costs time: without backprop no activations are kept"
    if args.torch_compile:
        yield "torch_compile has no effect: a probe's directions are hooks, which run in eager mode"

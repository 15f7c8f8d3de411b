"""What both Trainers' users are told while training, in the same words."""

from __future__ import annotations

from collections.abc import Iterator

from shared_seed.outcome import Step
from shared_seed.session import Session

CHANGED = (
    "which parameters are trained, or how their learning rates relate, has changed during a run that other peers "
    "or a log share; expected them to stay; freeze parameters and set up the optimizer before training"
)
"""The error where a run that others follow would have to become another."""

WIDER = "{error}; since nobody else trains along, training goes on, as a new run on a wider grid"
"""What follows a HeadroomError alone."""

ANEW = "the checkpoint's run cannot go on here ({error}); a new one begins from its weights"
"""What follows a checkpoint that does not fit, alone."""

COARSE = (
    "the loss is in half precision, of three digits, so that a probe's difference is mostly rounding; compute it "
    "in float32, as from logits.float(), or by autocast: bf16=True, precision='bf16-mixed'"
)
"""What follows a loss that is not float32."""

_ABSTAINED = "a loss was not finite, or a batch had none: such probes abstain, and their byte moves nothing"


def of_step(session: Session, step: Step) -> Iterator[str]:
    """What there is to say after a step."""
    if step.abstained:
        yield _ABSTAINED
    if session.probe.coarse:
        yield COARSE
    if session.stride.loudness.warning:
        yield session.stride.loudness.warning
    if step.late:
        yield f"{', '.join(step.late)} missed a deadline; what comes late is still applied"

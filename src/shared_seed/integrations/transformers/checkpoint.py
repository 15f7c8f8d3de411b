"""A run's state in the Trainer's checkpoints, beside the weights that it leads to."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from shared_seed.session import Session


def keep(session: Session, args: TrainingArguments, state: TrainerState) -> None:
    """Add the run's state to the checkpoint of the current step, if there is one.

    One process writes it, as with the weights. A hyperparameter search's trials are not taken up again.
    """
    folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    if args.should_save and not state.is_hyper_param_search and folder.is_dir():
        session.snapshot().save(folder)

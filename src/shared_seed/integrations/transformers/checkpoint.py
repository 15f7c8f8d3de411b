"""A run's state in the Trainer's checkpoints, beside the weights that it leads to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from shared_seed.messages import Stream
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.snapshot import Snapshot


def keep(session: Session, args: TrainingArguments, state: TrainerState) -> None:
    """Add the run's state to the checkpoint of the current step, if there is one.

    One process writes it, as with the weights. A hyperparameter search's trials are not taken up again.
    """
    folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    if args.should_save and not state.is_hyper_param_search and folder.is_dir():
        session.snapshot().save(folder)


def take_up(folder: str | None, settings: Settings, rank: int) -> Snapshot | None:
    """The run's state in a checkpoint that training resumes from; ``None`` for one made by backprop.

    Args:
        folder: the checkpoint, or ``None`` where training begins.
        settings: of this rank.
        rank: of this process; rank 0 wrote the state, the others find their own streams in it.

    Raises:
        LogError: there is one, but it cannot be used.
    """
    snapshot = Snapshot.load(Path(folder)) if folder else None
    if snapshot is None or rank == 0:
        return snapshot
    name = settings.peer_name(snapshot.contents.manifest.run)
    own = {m.stream for m in snapshot.contents.messages if m.stream.peer == name}
    new = Stream(name) if name is not None else Stream.fresh()
    return dataclasses.replace(snapshot, stream=max(own, key=lambda s: s.incarnation, default=new))

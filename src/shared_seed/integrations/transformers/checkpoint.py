"""A run's state in the Trainer's checkpoints, beside the weights that it leads to."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from shared_seed import authors
from shared_seed.launch import Place, settings_at
from shared_seed.session import Session
from shared_seed.settings import Settings
from shared_seed.snapshot import Snapshot

NOTE_NAME = "peer-{rank}.json"
"""In a checkpoint of several processes: the note of each but the first, as their ``rng_state_1.pth``."""


def keep(session: Session, args: TrainingArguments, state: TrainerState) -> None:
    """Add the run's state to the checkpoint of the current step, if there is one.

    One process writes it, as with the weights, and each of the others what it alone knows. A hyperparameter
    search's trials are not taken up again.
    """
    folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    if state.is_hyper_param_search or not folder.is_dir():
        return
    if args.should_save:
        session.snapshot().save(folder)
    if args.process_index > 0:
        (folder / NOTE_NAME.format(rank=args.process_index)).write_bytes(session.note())


def load(folder: Path, place: Place, settings: Settings) -> Snapshot | None:
    """The run's state in a checkpoint as this process has it, or ``None`` where there is none.

    Args:
        folder: the checkpoint's.
        place: of this process.
        settings: the same in all processes.

    Raises:
        LogError: there is one, but it cannot be used.
    """
    snapshot = Snapshot.load(folder)
    if snapshot is None or place.rank == 0:
        return snapshot
    path = folder / NOTE_NAME.format(rank=place.rank)
    note = path.read_bytes() if path.exists() else None
    return authors.as_peer(snapshot, settings_at(place, settings), note, str(path))

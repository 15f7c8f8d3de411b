"""A replayed model on disk, for ``from_pretrained``: there whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from shared_seed.errors import ModelError, RecipeError
from shared_seed.replay import Replayed
from shared_seed.selection import Selection

NAME = "replay.json"
"""Beside the model: what it was replayed from."""


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        RecipeError: it does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} is there already and not empty; choose another folder")


def save(replayed: Replayed, folder: Path, source: str, selection: Selection) -> None:
    """Write model, or adapter, and tokenizer: safetensors in a folder that appears when it is whole.

    Args:
        replayed: the model.
        folder: where to; it must not be there, or be empty.
        source: what the log was called.
        selection: of the log's messages.

    Raises:
        RecipeError: the folder holds something.
        ModelError: there is no room, or no right to write there.
    """
    folder = folder.absolute()
    check_free(folder)
    note = {
        "log": source,
        "digest": replayed.digest,
        "messages": replayed.messages,
        "until": selection.until,
        "without": list(selection.without),
    }
    partial: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        replayed.model.save_pretrained(partial)
        replayed.tokenizer.save_pretrained(partial)
        (partial / NAME).write_text(json.dumps(note, indent=2) + "\n")
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise ModelError(f"cannot save the model to {folder}: {error}; nothing is left of it") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)

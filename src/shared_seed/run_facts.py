"""What a run's folder tells of the run; no model is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from shared_seed import codec, log
from shared_seed import recipe as recipes
from shared_seed.errors import LogError
from shared_seed.folder import LOG_NAME
from shared_seed.log import Contents
from shared_seed.recipe import Recipe
from shared_seed.summary import NAME, Summary

CURVE_NAME = "loss.png"
"""In a run folder: the loss curve."""


@dataclass(frozen=True)
class RunFacts:
    """A run as its folder shows it.

    Args:
        contents: of the log.
        recipe: that the log carries, if it does.
        summary: of the run's end, if the folder has one of this very end.
        files: names of what lies in the folder.
    """

    contents: Contents
    recipe: Recipe | None
    summary: Summary | None
    files: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> RunFacts:
        """Read a run's folder.

        Raises:
            LogError: it has no log, or one that cannot be read, or a damaged summary.
            RecipeError: the log's recipe is not one that this release reads.
        """
        if not folder.is_dir():
            raise LogError(f"{folder} is not a run folder; expected a folder with a {LOG_NAME}")
        return cls.from_log(log.read(folder / LOG_NAME), folder)

    @classmethod
    def from_log(cls, contents: Contents, folder: Path) -> RunFacts:
        """The same, of a log that has been read.

        Raises:
            LogError: the summary is damaged.
            RecipeError: the log's recipe is not one that this release reads.
        """
        carried = contents.manifest.recipe
        recipe = None if carried is None else recipes.parse(carried, f"the recipe in {folder / LOG_NAME}")
        summary = Summary.load(folder) if (folder / NAME).exists() else None
        if summary is not None and (not contents.finished or summary.digest != digest_of(contents)):
            summary = None
        return cls(contents, recipe, summary, frozenset(path.name for path in folder.iterdir()))

    @property
    def digest(self) -> str | None:
        """SHA-256 of the trained parameters in hex, as the log states it, once the run has ended."""
        return digest_of(self.contents) if self.contents.finished else None

    @property
    def gradients(self) -> int:
        """Projected gradients in the log, abstentions among them."""
        return sum(len(message.codes) for message in self.contents.messages)

    @property
    def abstained(self) -> int:
        """Gradients that moved nothing, since their losses were not finite."""
        return sum(codec.is_abstention(c) for message in self.contents.messages for c in message.codes)

    @property
    def streams(self) -> int:
        """Writers, of which a peer that starts again is another."""
        return len({message.stream for message in self.contents.messages})

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(math.prod(tensor.shape) for tensor in self.contents.manifest.tensors)

    def missing(self) -> list[str]:
        """What a card would say and this folder does not tell, a sentence each."""
        found = []
        if not self.contents.finished:
            found.append("the run has not finished: no digest of its weights, no figures of its end")
        elif self.summary is None:
            found.append(f"no {NAME} of this end: scores, bytes exchanged, time, memory and energy are not known")
        elif self.summary.after is None:
            found.append("no scores: this peer did not test")
        if self.summary is not None and self.summary.usage.memory is None:
            found.append("memory was not measured")
        if self.summary is not None and not self.summary.usage.energies:
            found.append("energy was not measured: no counter on this machine that this user may read")
        if self.recipe is None:
            found.append("the log carries no recipe: base model, data and licence are for you to write")
        if CURVE_NAME not in self.files:
            found.append(f"no loss curve, {CURVE_NAME}")
        return found


def digest_of(contents: Contents) -> str | None:
    """The digest that a log states last, in hex."""
    return contents.digest[1].hex() if contents.digest else None

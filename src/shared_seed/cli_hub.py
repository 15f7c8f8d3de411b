"""The commands that publish a run: ``shared-seed card`` and ``shared-seed push``."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from shared_seed import card as cards
from shared_seed import hub, publication
from shared_seed.cli_replay import bar
from shared_seed.errors import RecipeError
from shared_seed.publication import Publication
from shared_seed.sections import REPOSITORY, Holds
from shared_seed.terminal import Terminal

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def card(
    folder: Run,
    target: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to. Default: README.md in the run folder.")
    ] = None,
) -> None:
    """Make a run's model card again, and say what is missing for a better one.

    Example: `shared-seed card runs/quickstart`
    """
    out = Terminal()
    facts = cards.write(folder, target)
    out.print(f"card      {target or folder / cards.NAME}", soft_wrap=True)
    for sentence in cards.missing(facts):
        out.print(f"missing   {sentence}", soft_wrap=True)


def push(
    folder: Run,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="USER/NAME on the Hub, or ./FOLDER.")],
    private: Annotated[bool, typer.Option("--private", help="If the repository is made, for you alone.")] = False,
    weights: Annotated[bool, typer.Option("--weights", help="Replay, and send the model's weights too.")] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="Replay, and send the LoRA adapter too.")] = False,
    base: Annotated[str | None, typer.Option(help="The base model, if not where the log says.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to write; made if it is not there.")] = None,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Publish a shared-seed run",
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Publish a run that has not ended.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
) -> None:
    """Publish a run: its gradient log, manifest, recipe, metrics and card, which are kilobytes.

    With these and the base model everybody can make the weights again and check them. Nothing else of the folder
    is sent.

    Examples:
    `shared-seed push runs/quickstart me/quickstart`

    `shared-seed push runs/quickstart ./published --weights`
    """
    if weights and adapter:
        raise RecipeError("--weights and --adapter exclude each other; use --adapter if the recipe has 'lora'")
    holds = Holds.WEIGHTS if weights else Holds.ADAPTER if adapter else Holds.LOG
    place = hub.Place.of(repository, revision, private)
    found = publication.gather(folder, unfinished)
    publication.check_kind(found.facts, holds)
    out = Terminal()
    with ExitStack() as stack:
        if holds is not Holds.LOG and not dry_run:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="shared-seed-push-"))
            with bar("replaying") as tell:
                found = publication.with_model(found, holds, Path(scratch), base, tell)
        name = place.name if dry_run else hub.full_name(place)
        found = found.for_repository(REPOSITORY if place.folder else name, holds)
        _show(found, out)
        if dry_run:
            replayed = "" if holds is Holds.LOG else f"; the {holds.value} would come from a replay"
            out.print(f"nothing was sent{replayed}")
            return
        where = hub.push(found.files, place, message)
    out.print(f"published {where}", soft_wrap=True)


def _show(found: Publication, out: Terminal) -> None:
    """Each file with its size, and what to think of before others read them."""
    sizes = found.sizes()
    for name, size in sizes.items():
        out.print(f"{size:>13,}  {name}", soft_wrap=True)
    out.print(f"{sum(sizes.values()):>13,}  bytes in {len(sizes)} files")
    digest = found.facts.digest
    if digest and digest not in str(found.files[cards.NAME]):
        out.print(
            f"note      {cards.NAME} does not state the run's digest; `shared-seed card` makes it again",
            soft_wrap=True,
        )
    for path in found.local_paths():
        out.print(f"note      readers will see {path!r} in the recipe, and do not have it", soft_wrap=True)

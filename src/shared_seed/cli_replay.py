"""The command ``shared-seed replay``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared_seed.errors import RecipeError
from shared_seed.selection import Selection
from shared_seed.terminal import Terminal

if TYPE_CHECKING:
    from shared_seed.replay import Replayed, Tell

Base = Annotated[str | None, typer.Option("--base", help="The base model, if not where the log says.")]


def replay(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[BASE] LOG",
            help="A gradient log, a run folder, or a Hub repository user/run[@revision]; before it the base "
            "model, if not where the log says.",
        ),
    ],
    base: Base = None,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Save the model, or the LoRA adapter, there.")
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(metavar="STEP", help="Apply only the rounds before this one, 0 to STEP - 1.", min=0),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PEER",
            help="Leave out all that this peer wrote: a stream as `inspect` prints it, a peer's first hex digits, "
            "or a public key; repeatable.",
        ),
    ] = None,
    digest: Annotated[bool, typer.Option("--digest", help="Print the digest and nothing else.")] = False,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Accept a log without an end.")] = False,
) -> None:
    """Rebuild the weights from base model and log, and check their digest.

    Examples:
    `shared-seed replay runs/quickstart`

    `shared-seed replay gradients.sslog -o model`

    `shared-seed replay HuggingFaceTB/SmolLM2-135M user/run -o model --until 500 --without 3fa94c10`
    """
    from shared_seed import replay as replays
    from shared_seed import saved
    from shared_seed.integrations.transformers.models import quiet

    *bases, source = words
    if len(bases) > 1 or (bases and base is not None):
        raise RecipeError(
            f"got {len(words)} names{' and --base' if base else ''}; expected a log, or a base model and a log"
        )
    base = bases[0] if bases else base
    selection = Selection(until, tuple(without or ()))
    if folder is not None:
        saved.check_free(folder)
    quiet()
    with bar("replaying") as tell:
        result = replays.checked(source, base, selection, unfinished, tell)
    if folder is not None:
        saved.save(result, folder, source, selection)
    if digest:
        sys.stdout.write(result.digest + "\n")
    else:
        _show(result, selection, folder, is_checked=selection.is_whole and not unfinished)


@contextmanager
def bar(title: str) -> Iterator[Tell]:
    """A bar of messages with the time that is left, on standard error; gives what is to be told of progress.

    An error takes it away.
    """
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("messages"))
    with Progress(*columns, TimeRemainingColumn(), console=Terminal(stderr=True)) as shown:
        task = shown.add_task(title, total=None)
        try:
            yield lambda done, total: shown.update(task, completed=done, total=total)
        except BaseException:
            shown.live.transient = True  # What went wrong is all that is left to read.
            raise


def _show(result: Replayed, selection: Selection, folder: Path | None, is_checked: bool) -> None:
    out = Terminal()
    out.print(f"digest    {result.digest}", soft_wrap=True)
    if is_checked:
        out.print("identical to the digest that the run stated at its end")
    if not selection.is_whole:
        parts = [f"rounds below {selection.until}"] if selection.until is not None else []
        parts += [f"without {', '.join(selection.without)}"] if selection.without else []
        out.print(f"messages  {result.messages:,}, {' and '.join(parts)}", soft_wrap=True)
    if folder is None:
        return
    out.print(f"saved to  {folder}", soft_wrap=True)
    if result.rounded:
        out.print(
            f"rounded   {len(result.rounded)} bfloat16 parameters are saved as the run computed with them; the 16 "
            "low bits of each number, which the digest is over too, are in the log alone",
            soft_wrap=True,
        )

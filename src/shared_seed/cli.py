"""The command line: ``shared-seed run``, ``join``, ``replay`` and all the others."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from shared_seed import (
    cli_audit,
    cli_compare,
    cli_estimate,
    cli_hub,
    cli_init,
    cli_inspect,
    cli_keys,
    cli_recipes,
    cli_relay,
    cli_replay,
    cli_report,
    collection,
    local,
    progress,
)
from shared_seed import recipe as recipes
from shared_seed.admission import Invite
from shared_seed.errors import LogError, RecipeError, SharedSeedError, UnreachableError
from shared_seed.folder import LOG_NAME, logged
from shared_seed.recipe import Recipe
from shared_seed.settings import Settings
from shared_seed.summary import Summary
from shared_seed.terminal import Terminal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models on machines that share nothing but a thin wire.",
)
app.command()(cli_audit.audit)
out = Terminal()
err = Terminal(stderr=True)


class Style(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    JSON = "json"


Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Run folder; a log in it is resumed. Default: a new one in runs/."),
]
Name = Annotated[str, typer.Option(help="What other peers see this one as.")]
Number = Annotated[
    int | None, typer.Option(help="An integer that only this peer has; makes a calm run reproducible.", min=0)
]
Shard = Annotated[str, typer.Option(help="Train on the K-th of N parts of the recipe's data, as K/N.")]
Data = Annotated[
    str | None, typer.Option(help="Train on this file (CSV, JSONL, Parquet) with the recipe's columns.")
]
Listen = Annotated[
    str | None, typer.Option(help="Accept peers at tcp://HOST:PORT; PORT+1 and PORT+2 are used too.")
]
ProgressStyle = Annotated[Style, typer.Option("--progress", help="auto, or json for one event a line.")]


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's YAML file, or MODEL/TASK or MODEL/TASK/METHOD.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Other values, as training.steps=500.")
    ] = None,
    listen: Listen = None,
    peers: Annotated[int, typer.Option("--local", help="Run this many peers on this machine.", min=1)] = 1,
    start_with: Annotated[int | None, typer.Option(help="Begin when this many peers are ready.", min=1)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use the recipe's short version.")] = False,
    data: Data = None,
    shard: Shard = "1/1",
    via: Annotated[
        list[str] | None,
        typer.Option(help="Also meet other peers at this relay, tcp://KEY@HOST:PORT; repeatable."),
    ] = None,
    admit: cli_keys.Admit = None,
    keys: cli_keys.Keys = None,
    folder: Out = None,
    name: Name = "peer 1",
    number: Number = 0,
    dry: cli_estimate.Dry = False,
    style: ProgressStyle = Style.AUTO,
) -> None:
    """Start a run from a recipe; `shared-seed recipes` lists those that there are.

    Examples:
    `shared-seed run recipes/quickstart.yaml --local 3`

    `shared-seed run recipes/quickstart.yaml --listen tcp://0.0.0.0:5555 --start-with 2`

    `shared-seed run llama-3.1-8b/boolq/lora-4bit training.steps=500 --dry-run`
    """
    request = collection.Request(recipe, tuple(overrides or ()), quick)
    found = request.find()
    terms = found.recipe
    if admit or keys:
        terms = terms.admitting(admit, keys or ())
    if dry:
        cli_estimate.show(out, terms, found.facts, max(peers, start_with or terms.swarm.peers))
        return
    where = _run_folder(folder, found.name, style)
    earlier = _finished(where, peers, terms) if style is Style.AUTO and not listen and not via else None
    if earlier is not None:
        summary = earlier
    elif peers > 1:
        options = [*(["--data", data] if data else []), *cli_keys.options(admit, keys)]
        summary = local.run_peers(request, terms, peers, where, options)
    else:
        changes: dict[str, Any] = {"listen": listen, "name": name, "number": number, "via": tuple(via or ())}
        if start_with:
            changes["start_with"] = start_with
        summary = _take_part(terms, style, where, data, shard, True, changes)
    if style is Style.AUTO:
        _show(summary, where)
    if not summary.identical:
        raise SharedSeedError(f"the replicas differ: {summary.replicas}; keep {where} and report this")


@app.command()
def join(
    addresses: Annotated[
        list[str],
        typer.Argument(metavar="ADDRESS...", help="Where peers or relays of a run listen, as they print it."),
    ],
    data: Data = None,
    shard: Shard = "1/1",
    listen: Listen = None,
    invite: cli_keys.Token = None,
    folder: Out = None,
    name: Name = "",
    number: Number = None,
    style: ProgressStyle = Style.AUTO,
) -> None:
    """Take part in a run; recipe and terms come from it.

    Examples:
    `shared-seed join tcp://127.0.0.1:5555 --data my.csv`

    `shared-seed join tcp://127.0.0.1:5555 --shard 2/3`
    """
    from shared_seed import authors
    from shared_seed import data as data_module
    from shared_seed.swarm.zmq import fetch_manifest, parse

    for address in addresses:
        parse(address)
    address = addresses[0]
    if invite is not None:
        Invite.parse(invite)
    # The frameworks take seconds to import; here that costs nothing, since the run may still be loading.
    importlib.import_module("shared_seed.integrations.transformers.models")
    data_module.preload()
    key, guest = authors.guest(Settings(invite=invite))
    try:
        manifest, _ = fetch_manifest(address, key, guest, 300.0 if style is Style.JSON else 30.0)
    except UnreachableError:
        earlier = _finished(folder, 1) if folder is not None and style is Style.AUTO else None
        if folder is None or earlier is None:
            raise
        _show(earlier, folder)
        return
    if manifest.recipe is None:
        raise RecipeError(
            f"the run at {address} has no recipe; join it from your own script with "
            "Settings(join=(address,)) and the same model"
        )
    terms = recipes.parse(manifest.recipe, f"the recipe of the run at {address}")
    where = _run_folder(folder, "join", style)
    changes = {"listen": listen, "join": tuple(addresses), "name": name or f"peer {os.getpid()}", "number": number}
    changes["invite"] = invite
    summary = _take_part(terms, style, where, data, shard, False, changes)
    if style is Style.AUTO:
        _show(summary, where)


COMMANDS: tuple[Callable[..., None], ...] = (
    cli_replay.replay,
    cli_inspect.inspect,
    cli_compare.diff,
    cli_compare.merge,
    cli_report.report,
    cli_hub.card,
    cli_hub.push,
    cli_recipes.recipes,
    cli_init.init,
    cli_relay.relay,
    cli_keys.key,
    cli_keys.invite,
    cli_keys.ban,
    cli_keys.unban,
)
for command in COMMANDS:
    app.command()(command)


def _run_folder(given: Path | None, stem: str, style: Style) -> Path:
    """The folder that was asked for, else ``runs/STEM``, or with the first number behind it that is free.

    Says how to go on with a run that the last folder of that name holds, and that has not ended.

    Raises:
        RecipeError: what was asked for is no folder.
    """
    if given is not None:
        if given.exists() and not given.is_dir():
            raise RecipeError(f"{given} is there already and is no folder; choose another with -o")
        return given
    base, number = Path("runs") / stem, 1
    folder, last = base, None
    while folder.exists():
        number, last = number + 1, folder
        folder = base.with_name(f"{stem}-{number}")
    if last is not None and style is Style.AUTO and _is_unfinished(last):
        err.print(
            f"{last} holds a run that has not ended; -o {last} goes on with it; this one is in {folder}",
            soft_wrap=True,
        )
    return folder


def _is_unfinished(folder: Path) -> bool:
    try:
        contents = logged(folder)
    except LogError:
        return False
    return contents is not None and not contents.finished


def _finished(folder: Path, peers: int, terms: Recipe | None = None) -> Summary | None:
    """What the run of so many local peers in a folder came to, and says so, if it has ended, with these terms."""
    folders = [folder, *(folder / "peers" / str(number) for number in range(2, peers + 1))]
    if not all((each / LOG_NAME).exists() for each in folders):
        return None
    from shared_seed.run import complete, finished

    summaries = [finished(each, terms) for each in folders]
    if summaries[0] is None or None in summaries:
        return None
    out.print(f"finished  {folder} holds a run that has ended; this is what it came to", soft_wrap=True)
    return complete(folder, summaries[0])


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise RecipeError(f"shard {text!r} is not K/N with 1 <= K <= N, such as 2/3")
    return int(number) - 1, int(of)


def _take_part(
    terms: Recipe,
    style: Style,
    folder: Path,
    data: str | None,
    shard: str,
    test: bool,
    changes: dict[str, Any],
) -> Summary:
    """One peer in this process, shown as asked for."""
    from shared_seed.run import Part, settings_for, take_part

    part = Part(data, *_shard(shard))
    settings = settings_for(terms, folder, **changes)
    if style is Style.JSON:
        return take_part(terms, settings, part, test, progress.json_lines(sys.stdout))
    with progress.Display(terms.title) as display:
        return take_part(terms, settings, part, test, lambda event: display.show(settings.name, event))


def _show(summary: Summary, folder: Path) -> None:
    """What a run came to."""
    if summary.scores():
        assert summary.after is not None
        table = Table("", "before", "after", title=f"{summary.after.rows:,} held-out rows", title_justify="left")
        for row in summary.scores():
            table.add_row(*row)
        out.print(table)
    gradients = max(1, summary.gradients)
    out.print(
        f"time      {summary.seconds:.0f} s in training, {summary.gradients / summary.seconds:.2f} gradients/s"
    )
    out.print(
        f"wire      {summary.received:,} bytes received by {'all peers' if summary.peers > 1 else 'this peer'}, "
        f"{summary.received / gradients:.1f} a gradient; of these, gradient messages "
        f"{summary.gradient_received:,} ({summary.gradient_received / gradients:.1f})"
    )
    out.print(f"log       {summary.log_bytes:,} bytes, {summary.log_bytes / gradients:.1f} a gradient")
    for name, digest in summary.replicas.items():
        out.print(f"replica   {digest}  {name}", soft_wrap=True)
    if len(summary.replicas) > 1:
        same = f"all {len(summary.replicas)} replicas hold identical bits"
        out.print(
            same if summary.identical else "REPLICAS DIFFER",
            style="bold green" if summary.identical else "bold red",
        )
    out.print(f"folder    {folder} (gradient log, metrics, model card, loss curve, report.html)", soft_wrap=True)
    out.print(f"replay    shared-seed replay {folder}", soft_wrap=True)


def _refuse(error: SharedSeedError | str, code: int = 1) -> NoReturn:
    if "json" in sys.argv:
        progress.json_lines(sys.stdout)({"event": "error", "text": str(error)})
    else:
        err.print(Text.assemble(("error:", "bold red"), f" {error}"), soft_wrap=True)
    sys.exit(code)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(command: Callable[..., Any] = app) -> None:
    """The entry point: every expected error ends in one message and exit code 1."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        command(standalone_mode=False)
    except SharedSeedError as error:
        _refuse(error)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        goes_on = "; what was done is in the run folder, and the same command with -o FOLDER goes on from there"
        _refuse(f"interrupted{goes_on if sys.argv[1:2] in (['run'], ['join']) else ''}", 130)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "show"):
            error.show()
            sys.exit(getattr(error, "exit_code", 2))
        raise

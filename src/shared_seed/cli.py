"""The command line: ``shared-seed run``, ``join``, ``replay`` and all the others."""

from __future__ import annotations

import importlib
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from shared_seed import cli_audit, cli_hub, cli_keys, cli_relay, codec, local, log, progress
from shared_seed import recipe as recipes
from shared_seed.admission import Invite
from shared_seed.errors import LogError, RecipeError, SharedSeedError
from shared_seed.folder import LOG_NAME
from shared_seed.recipe import Recipe
from shared_seed.settings import Settings
from shared_seed.summary import Summary

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models on machines that share nothing but a thin wire.",
)
app.command()(cli_audit.audit)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


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
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file.")],
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
    style: ProgressStyle = Style.AUTO,
) -> None:
    """Start a run from a recipe.

    Examples:
    `shared-seed run recipes/quickstart.yaml --local 3`

    `shared-seed run recipes/quickstart.yaml --listen tcp://0.0.0.0:5555 --start-with 2`
    """
    terms = recipes.load(recipe)
    terms = terms.quickened() if quick else terms
    if admit or keys:
        terms = terms.admitting(admit, keys or ())
    where = folder or _new_folder(recipe.stem)
    if peers > 1:
        options = [*(["--quick"] if quick else []), *(["--data", data] if data else [])]
        options += cli_keys.options(admit, keys)
        summary = local.run_peers(recipe, terms, peers, where, options)
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
    manifest, _ = fetch_manifest(address, key, guest, 300.0 if style is Style.JSON else 30.0)
    if manifest.recipe is None:
        raise RecipeError(
            f"the run at {address} has no recipe; join it from your own script with "
            "Settings(join=(address,)) and the same model"
        )
    terms = recipes.parse(manifest.recipe, f"the recipe of the run at {address}")
    where = folder or _new_folder("join")
    changes = {"listen": listen, "join": tuple(addresses), "name": name or f"peer {os.getpid()}", "number": number}
    changes["invite"] = invite
    summary = _take_part(terms, style, where, data, shard, False, changes)
    if style is Style.AUTO:
        _show(summary, where)


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(metavar="LOG", help="A gradient log, or a run folder with one.")],
    base: Annotated[str | None, typer.Option(help="The base model, if not where the log says.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", "-o", help="Save the model there.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Accept a log without an end.")] = False,
) -> None:
    """Rebuild the weights from base model and log, and check their digest.

    Examples:
    `shared-seed replay runs/quickstart`

    `shared-seed replay gradients.sslog -o model`
    """
    from shared_seed import replay as replays

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} is there already and not empty; choose another folder")
    contents = log.read(_log_in(path))
    if not contents.finished and not unfinished:
        raise LogError(
            f"{_log_in(path)} does not end with the digest that a finished run states: it was cut off, or the run "
            f"did not finish; its {len(contents.messages)} whole messages can be replayed with "
            "--unfinished, as far as signatures prove them"
        )
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TextColumn("messages"))
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("replay", total=None)
        total = len(contents.messages)
        result = replays.replay(contents, base, lambda done: bar.update(task, completed=done, total=total))
    out.print(f"digest    {result.digest}", soft_wrap=True)
    if contents.finished and contents.digest is not None:
        stated = contents.digest[1].hex()
        if stated != result.digest:
            raise LogError(f"the log states digest {stated}; the replayed weights have {result.digest}")
        out.print("identical to the digest that the run stated at its end")
    if folder is not None:
        result.model.save_pretrained(folder)
        result.tokenizer.save_pretrained(folder)
        out.print(f"saved to  {folder}")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="LOG", help="A gradient log, or a run folder with one.")],
    last: Annotated[int, typer.Option(help="Also show this many of the last messages.", min=0)] = 10,
) -> None:
    """Print what a gradient log holds.

    Example: `shared-seed inspect runs/quickstart --last 20`
    """
    where = _log_in(path)
    contents = log.read(where)
    manifest, messages = contents.manifest, contents.messages
    trained = sum(math.prod(t.shape) for t in manifest.tensors)
    out.print(f"log       {where} ({contents.size:,} bytes{f', {contents.torn} torn' if contents.torn else ''})")
    out.print(f"run       {manifest.run}")
    out.print(f"model     {manifest.model}: {trained:,} parameters in {len(manifest.tensors)} tensors")
    mode = "lockstep" if manifest.lockstep else "free-running"
    out.print(f"terms     epsilon {manifest.epsilon:g}, {manifest.rounds} rounds, {mode}")
    if contents.digest is not None:
        out.print(f"digest    {contents.digest[1].hex()} after {contents.digest[0]} messages", soft_wrap=True)
    table = Table("stream", "messages", "gradients", "rounds", "abstained", title="streams", title_justify="left")
    for stream in dict.fromkeys(m.stream for m in messages):
        own = [m for m in messages if m.stream == stream]
        codes = b"".join(m.codes for m in own)
        rounds = f"{min(m.round for m in own)} to {max(m.round for m in own)}"
        abstained = sum(map(codec.is_abstention, codes))
        table.add_row(str(stream), f"{len(own):,}", f"{len(codes):,}", rounds, str(abstained))
    out.print(table)
    if last and messages:
        _show_messages(contents, last)


for command in (
    cli_hub.card,
    cli_hub.push,
    cli_relay.relay,
    cli_keys.key,
    cli_keys.invite,
    cli_keys.ban,
    cli_keys.unban,
):
    app.command()(command)


def _show_messages(contents: log.Contents, last: int) -> None:
    table = Table(
        "round", "stream", "number", "learning rate", "gradients", title="last messages", title_justify="left"
    )
    for m in contents.messages[-last:]:
        gradients = " ".join(f"{codec.decode(c, contents.manifest.scale_exponent):+g}" for c in m.codes)
        table.add_row(str(m.round), str(m.stream), str(m.number), f"{m.learning_rate:g}", gradients)
    out.print(table)


def _log_in(path: Path) -> Path:
    return path / LOG_NAME if path.is_dir() else path


def _new_folder(stem: str) -> Path:
    """``runs/STEM``, or with the first number behind it that is free."""
    base, number = Path("runs") / stem, 1
    folder = base
    while folder.exists():
        number += 1
        folder = base.with_name(f"{stem}-{number}")
    return folder


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
    out.print(f"folder    {folder} (gradient log, metrics, model card, loss curve)")
    out.print(f"replay    shared-seed replay {folder}")


def _refuse(error: SharedSeedError | str, code: int = 1) -> NoReturn:
    if "json" in sys.argv:
        progress.json_lines(sys.stdout)({"event": "error", "text": str(error)})
    else:
        err.print(f"[bold red]error:[/] {error}", soft_wrap=True)
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
        _refuse("interrupted; what was done is in the run folder, and -o FOLDER goes on from there", 130)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "show"):
            error.show()
            sys.exit(getattr(error, "exit_code", 2))
        raise

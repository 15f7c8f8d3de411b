"""The commands ``shared-seed diff`` and ``shared-seed merge``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from shared_seed import compare, history, merging, sources
from shared_seed.cli_replay import Base, bar
from shared_seed.compare import Difference, Pair
from shared_seed.errors import LogError, RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.log import Contents, RunLog
from shared_seed.terminal import Terminal

DIFFERENT = 3
"""Exit code where logs differ; 1 is for errors and 2 for usage, as everywhere."""


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help=sources.HELP)],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell two logs apart: terms, messages of each stream that one of them lacks, bans, forks, digests.

    Exit code 0 if they hold the same, 3 if not, 1 if one of them cannot be read.

    Examples:
    `shared-seed diff runs/quickstart runs/quickstart/peers/2`

    `shared-seed diff gradients.sslog user/run --json`
    """
    found = compare.compare(sources.read(first), sources.read(second))
    if as_json:
        sys.stdout.write(json.dumps(compare.as_dict(found)) + "\n")
    else:
        _show(found, Terminal())
    if not found.is_equal:
        raise SystemExit(DIFFERENT)


def _show(found: Difference, out: Terminal) -> None:
    if found.is_equal:
        out.print(f"the logs hold the same: {sum(each.both for each in found.streams):,} messages, and all else")
        return
    out.print("two logs of one run" if found.same_run else "logs of different runs")
    for field, pair in found.terms.items():
        _print_pair(out, field, pair)
    _print_streams(found, out)
    sections = (("key", found.guests), ("key", found.orders), ("stream", found.forks))
    for title, pairs in sections:
        for name, pair in pairs.items():
            _print_pair(out, f"{title} {name}", pair)
    if found.digests[0] != found.digests[1]:
        _print_pair(out, "digest at the end", found.digests)


def _print_streams(found: Difference, out: Terminal) -> None:
    same = sum(each.is_equal for each in found.streams)
    if same:
        out.print(f"the same in {same:,} of {len(found.streams):,} streams")
    if same == len(found.streams):
        return
    table = Table("stream", "in both", "only in A", "only in B", "differ from", title="streams that differ")
    table.title_justify = "left"
    for each in found.streams:
        if each.is_equal:
            continue
        parted = "" if each.parts_at is None else f"number {each.parts_at}"
        counts = (f"{each.both:,}", f"{each.only_first:,}", f"{each.only_second:,}")
        table.add_row(str(each.stream), *counts, parted)
    out.print(table)
    if found.same_run and any(each.parts_at is not None for each in found.streams):
        out.print(
            "a stream that differs from a number on has said two things under it; if both are signed, "
            "`shared-seed merge` proves it, and ends the stream there"
        )


def _print_pair(out: Terminal, name: str, pair: Pair) -> None:
    first, second = (each or "nothing" for each in pair)
    out.print(f"{name}: A has {first}; B has {second}", soft_wrap=True)


def merge(
    words: Annotated[list[str], typer.Argument(metavar="A B...", help=sources.HELP)],
    folder: Annotated[Path, typer.Option("--out", "-o", help="A new run folder for the union.")],
    digest: Annotated[
        bool, typer.Option("--digest", help="Replay the union and state the digest of its weights.")
    ] = False,
    base: Base = None,
) -> None:
    """Unite logs of one run into one: all messages, bans and proofs that any of them holds.

    The folder is a run folder: `shared-seed run` with the same recipe goes on from there, and `replay` gives the
    weights, with `--unfinished` where no digest is stated.

    Examples:
    `shared-seed merge runs/left runs/right -o runs/both --digest`

    `shared-seed merge mine.sslog user/run -o runs/both`
    """
    path = folder / LOG_NAME
    if len(words) < 2:
        raise RecipeError("got one log; expected two or more to unite, and -o FOLDER")
    if path.exists() or (folder.exists() and not folder.is_dir()):
        raise RecipeError(f"{path if path.exists() else folder} is there already; choose another folder")
    logs = [sources.read(word) for word in words]
    union = merging.merge(logs)
    if digest:
        union = replace(union, digest=(len(union.signed), _digest(union, base)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogError(f"cannot make the run folder {folder}: {error.strerror}; choose another") from error
    RunLog.create(path, union).close()
    _tell(words, logs, union, path)


def _digest(union: Contents, base: str | None) -> bytes:
    from shared_seed import replay
    from shared_seed.integrations.transformers.models import quiet

    quiet()
    with bar("replaying") as tell:
        return bytes.fromhex(replay.replay(union, base, tell).digest)


def _tell(words: list[str], logs: list[Contents], union: Contents, path: Path) -> None:
    out = Terminal()
    for word, contents in zip(words, logs, strict=True):
        out.print(f"log       {word}: {len(contents.signed):,} messages", soft_wrap=True)
    archive = history.archive_of(union)
    streams = len(archive.streams)
    out.print(f"union     {path}: {len(union.signed):,} messages of {streams:,} streams", soft_wrap=True)
    if len(archive.effective()) < len(archive):
        out.print(
            f"of these, {len(archive) - len(archive.effective()):,} do not count: their keys are banned or out"
        )
    for stream, fork in sorted(archive.forks.items()):
        out.print(f"forked    {stream} has signed two messages under number {fork.number}; it ends there")
    if union.digest is not None:
        out.print(f"digest    {union.digest[1].hex()}", soft_wrap=True)

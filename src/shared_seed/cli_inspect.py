"""The command ``shared-seed inspect``."""

from __future__ import annotations

import json
import math
import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from shared_seed import codec, history, identity, log, sources
from shared_seed.archive import Archive
from shared_seed.log import Contents
from shared_seed.manifest import Manifest
from shared_seed.messages import Message, Stream
from shared_seed.terminal import Terminal

Facts = dict[str, Any]


def inspect(
    source: Annotated[str, typer.Argument(metavar="LOG", help=sources.HELP)],
    last: Annotated[int, typer.Option(help="Also show this many of the last messages.", min=0)] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what a gradient log holds: terms, who wrote what, and what does not count.

    Examples:
    `shared-seed inspect runs/quickstart --last 20`

    `shared-seed inspect user/run --json`
    """
    where = sources.find(source)
    contents = log.read(where)
    facts = facts_of(contents, history.archive_of(contents), last) | {"log": str(where)}
    if as_json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        _show(facts, Terminal())


def facts_of(contents: Contents, archive: Archive, last: int) -> Facts:
    """What a log holds, as JSON has it; ``archive`` is the log's."""
    manifest = contents.manifest
    stated = contents.digest
    return {
        "bytes": contents.size,
        "torn": contents.torn,
        "run": manifest.run,
        "model": manifest.model,
        "parameters": sum(math.prod(t.shape) for t in manifest.tensors),
        "tensors": len(manifest.tensors),
        "epsilon": manifest.epsilon,
        "rounds": manifest.rounds,
        "lockstep": manifest.lockstep,
        "owner": manifest.owner or None,
        "admission": manifest.admission.model_dump(mode="json"),
        "aggregation": manifest.aggregation.model_dump(mode="json"),
        "finished": contents.finished,
        "digest": {"after": stated[0], "sha256": stated[1].hex()} if stated else None,
        "streams": [_stream(archive, stream, own) for stream, own in _by_stream(contents.messages).items()],
        "orders": [
            {"key": order.key.hex(), "banned": order.banned, "serial": order.serial}
            for _, order in sorted(archive.orders.items())
        ],
        "excluded": sorted(key.hex() for key in archive.admissions.excluded),
        "forks": [
            {"stream": str(stream), "number": fork.number} for stream, fork in sorted(archive.forks.items())
        ],
        "last": [_message(m, manifest) for m in contents.messages[-last:]] if last else [],
    }


def _by_stream(messages: list[Message]) -> dict[Stream, list[Message]]:
    found: dict[Stream, list[Message]] = {}
    for message in messages:
        found.setdefault(message.stream, []).append(message)
    return found


def _stream(archive: Archive, stream: Stream, own: list[Message]) -> Facts:
    codes = b"".join(m.codes for m in own)
    known = archive.introduction(stream)
    return {
        "stream": str(stream),
        "peer": stream.peer.hex(),
        "incarnation": stream.incarnation,
        "key": identity.show(known.key) if known else None,
        "counts": archive.counts(stream),
        "messages": len(own),
        "gradients": len(codes),
        "first_round": min(m.round for m in own),
        "last_round": max(m.round for m in own),
        "abstained": sum(map(codec.is_abstention, codes)),
    }


def _message(message: Message, manifest: Manifest) -> Facts:
    decoded = [codec.decode(code, manifest.scale_exponent) for code in message.codes]
    return {
        "round": message.round,
        "stream": str(message.stream),
        "number": message.number,
        "learning_rate": message.learning_rate,
        "gradients": [None if math.isnan(gradient) else gradient for gradient in decoded],
    }


def _show(facts: Facts, out: Terminal) -> None:
    torn = f", {facts['torn']} torn" if facts["torn"] else ""
    mode = "lockstep" if facts["lockstep"] else "free-running"
    listed = len(facts["admission"]["keys"])
    out.print(f"log       {facts['log']} ({facts['bytes']:,} bytes{torn})", soft_wrap=True)
    out.print(f"run       {facts['run']}")
    out.print(f"model     {facts['model']}: {facts['parameters']:,} parameters in {facts['tensors']} tensors")
    out.print(f"terms     epsilon {facts['epsilon']:g}, {facts['rounds']} rounds, {mode}")
    out.print(f"rounds    add up by {_rule(facts['aggregation'])}")
    out.print(f"owner     {facts['owner'] or 'none: a private run, where nothing is signed'}", soft_wrap=True)
    out.print(f"admits    {facts['admission']['mode']}{f', {listed} keys listed' if listed else ''}")
    if facts["digest"]:
        out.print(
            f"digest    {facts['digest']['sha256']} after {facts['digest']['after']} messages", soft_wrap=True
        )
    for order in facts["orders"]:
        out.print(f"{'banned' if order['banned'] else 'unbanned':9} {order['key']}", soft_wrap=True)
    for key in facts["excluded"]:
        out.print(f"excluded  {key}: its invite admits another key", soft_wrap=True)
    for fork in facts["forks"]:
        out.print(
            f"forked    {fork['stream']} has signed two messages under number {fork['number']}; it ends there"
        )
    out.print(_stream_table(facts["streams"]))
    for key in dict.fromkeys(each["key"] for each in facts["streams"] if each["key"]):
        own = [each["stream"] for each in facts["streams"] if each["key"] == key]
        out.print(f"key       {key}, of {', '.join(own)}", soft_wrap=True)
    if facts["last"]:
        out.print(_message_table(facts["last"]))


def _rule(aggregation: Facts) -> str:
    kind = str(aggregation["kind"])
    settings = {"clip": f", factor {aggregation['factor']:g}", "trimmed": f", trim {aggregation['trim']:g}"}
    return kind + settings.get(kind, "")


def _stream_table(streams: list[Facts]) -> Table:
    columns = ("stream", "messages", "gradients", "rounds", "abstained", "counts")
    table = Table(*columns, title="streams", title_justify="left")
    for each in streams:
        rounds = f"{each['first_round']} to {each['last_round']}"
        counts = (f"{each['messages']:,}", f"{each['gradients']:,}", rounds, str(each["abstained"]))
        table.add_row(each["stream"], *counts, "yes" if each["counts"] else "no")
    return table


def _message_table(messages: list[Facts]) -> Table:
    columns = ("round", "stream", "number", "learning rate", "gradients")
    table = Table(*columns, title="last messages", title_justify="left")
    for each in messages:
        gradients = " ".join("nan" if g is None else f"{g:+g}" for g in each["gradients"])
        place = (str(each["round"]), each["stream"], str(each["number"]))
        table.add_row(*place, f"{each['learning_rate']:g}", gradients)
    return table

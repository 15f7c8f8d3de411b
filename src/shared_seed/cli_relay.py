"""The command ``shared-seed relay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from shared_seed import identity
from shared_seed.swarm.answers import Supply
from shared_seed.terminal import Terminal

if TYPE_CHECKING:
    from shared_seed.relay import Relay

err = Terminal(stderr=True)


def relay(
    listen: Annotated[str, typer.Option(help="Accept peers at tcp://HOST:PORT; PORT+1 and PORT+2 are used too.")],
    join: Annotated[
        list[str] | None,
        typer.Option(help="Dial this relay or peer, tcp://KEY@HOST:PORT; the first gives the run. Repeatable."),
    ] = None,
    folder: Annotated[
        Path, typer.Option("--out", "-o", help="Keep the run's messages there; a log in it is taken up.")
    ] = Path("runs/relay"),
    owner: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Take only runs of the owner with this public key. Repeatable."),
    ] = None,
    status: Annotated[
        str, typer.Option(metavar="[HOST:]PORT", help="Show what it does at this port over HTTP.")
    ] = "127.0.0.1:8080",
    invite: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="An invite, where the run needs one.")
    ] = None,
    name: Annotated[str, typer.Option(help="What peers see this relay as.")] = "relay",
    most_messages: Annotated[
        int, typer.Option(help="Take in no more messages than this; about 80 bytes of memory each.", min=1)
    ] = 5_000_000,
    most_gigabytes: Annotated[float, typer.Option(help="Take in no more than this on disk.", min=0.001)] = 4.0,
    peer_rate: Annotated[
        float, typer.Option(metavar="MB", help="Megabytes a second for each peer that catches up.", min=0.01)
    ] = 4.0,
    rate: Annotated[
        float, typer.Option(metavar="MB", help="Megabytes a second for all that catch up.", min=0.01)
    ] = 16.0,
) -> None:
    """Pass on and keep what the peers of a run say, without a model, so that none of them needs an open port.

    Examples:
    `shared-seed relay --listen tcp://0.0.0.0:5555`, then `shared-seed run recipe.yaml --via tcp://KEY@HOST:5555`

    `shared-seed relay --listen tcp://[::]:5555 --join tcp://KEY@other:5555 --status 0.0.0.0:8080`
    """
    # Late: they take a second to import, which no other command should wait for.
    from shared_seed.relay import Relay, RelaySettings
    from shared_seed.status import StatusPage, figures, parse_status

    settings = RelaySettings(
        listen=listen,
        folder=folder,
        join=tuple(join or ()),
        owners=frozenset(map(identity.parse, owner or ())),
        name=name,
        invite=invite,
        most_messages=most_messages,
        most_bytes=int(most_gigabytes * (1 << 30)),
        supply=Supply(int(1e6 * peer_rate), int(1e6 * rate)),
    )
    host, port = parse_status(status)
    err.print(f"key       {identity.show(identity.load().public)}")
    running = Relay.open(settings, lambda text: err.print(f"relay     {text}"))
    try:
        shown = StatusPage(lambda: figures(running), host, port)
        try:
            err.print(f"run       {running.manifest.run} of owner {running.manifest.owner}", soft_wrap=True)
            err.print(f"address   {running.swarm.address}", soft_wrap=True)
            err.print(f"status    {shown.address}")
            _serve(running)
        except KeyboardInterrupt:
            err.print(f"stopped; the same command goes on with what is in {folder}")
        finally:
            shown.close()
    finally:
        running.close()


def _serve(running: Relay) -> None:
    """Work until interrupted; tell of troubles once each."""
    told: dict[str, None] = {}
    while True:
        running.step()
        faults = running.swarm.ask(lambda protocol, now: list(protocol.standing.faults))
        for text in [*faults, *([running.trouble] if running.trouble else [])]:
            if text not in told:
                told[text] = None
                err.print(Text.assemble(("noted", "yellow"), f"     {text}"), soft_wrap=True)
        while len(told) > 1000:
            del told[next(iter(told))]

"""The commands about who takes part: ``shared-seed key | invite | ban | unban``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from shared_seed import authors, clock, identity, log
from shared_seed.admission import Invite
from shared_seed.errors import RecipeError
from shared_seed.folder import LOG_NAME
from shared_seed.log import RunLog
from shared_seed.manifest import Manifest
from shared_seed.proofs import Order
from shared_seed.settings import Settings
from shared_seed.swarm.zmq import bring, fetch_manifest


class Mode(StrEnum):
    """Who may take part in a run."""

    OPEN = "open"
    KEYS = "keys"
    INVITE = "invite"


Admit = Annotated[
    Mode | None,
    typer.Option(
        "--admit",
        help="Who may take part: all, the keys of --key, or these and who has an invite.",
        show_default=False,
    ),
]
Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="HEX", help="Admit this key (`shared-seed key` prints it there); repeatable."),
]
Token = Annotated[
    str | None,
    typer.Option("--invite", metavar="TOKEN", help="An invite from the owner, where the run needs one."),
]


def options(admit: Mode | None, keys: list[str] | None) -> list[str]:
    """The same options for another process."""
    words = ["--admit", admit.value] if admit else []
    return words + [word for key in keys or [] for word in ("--key", key)]


def key(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Print this machine's public key, which a run can list; makes one where there is none.

    Example: `shared-seed key`
    """
    public, path = identity.show(identity.load().public), identity.key_path().absolute()
    if as_json:
        typer.echo(json.dumps({"key": public, "file": str(path)}))
    else:
        typer.echo(f"key       {public}\nfile      {path}")


def invite(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="The folder of a run that you began.")],
    count: Annotated[int, typer.Option("-n", help="Print this many invites.", min=1)] = 1,
) -> None:
    """Print invites to a run that was begun with `--admit invite`, one a line; each admits one person's key.

    Example: `shared-seed invite runs/quickstart -n 3`
    """
    manifest, owner = log.read(folder / LOG_NAME).manifest, identity.load()
    _check_can_invite(folder, manifest, owner.public)
    for _ in range(count):
        typer.echo(str(Invite.issue(owner, manifest.seal)))
    typer.echo("give each to one person, in private, to use it: shared-seed join ADDRESS --invite TOKEN", err=True)


def _check_can_invite(folder: Path, manifest: Manifest, public: bytes) -> None:
    mode = manifest.admission.mode
    if mode == "open":
        raise RecipeError(
            f"the run in {folder} is open: everybody may join it, and no invite is needed; a run that needs them "
            "is begun with `shared-seed run --admit invite`"
        )
    if mode == "keys":
        raise RecipeError(
            f"the run in {folder} admits the keys that were listed when it began, and no invites; a run that "
            "takes them is begun with `shared-seed run --admit invite`"
        )
    if public != manifest.owner_bytes:
        raise RecipeError(
            f"only the owner of the run in {folder}, {manifest.owner}, can invite to it, and your key is "
            f"{identity.show(public)}; run this where the owner's key lies, or name its file with the environment "
            f"variable {identity.VARIABLE}"
        )


Banned = Annotated[str, typer.Argument(metavar="KEY", help="The peer's public key, 64 hex digits.")]
Where = Annotated[
    str,
    typer.Option(
        "--run",
        help="Address of a peer or relay of the run, or a run folder that is not in use, where it is kept.",
    ),
]


def ban(key: Banned, run: Where) -> None:
    """Take out all that a key has written, everywhere, exactly; for the owner of a run.

    Example: `shared-seed ban 5f3a… --run tcp://192.0.2.1:5555`
    """
    _order(key, run, banned=True)
    typer.echo(
        f"banned    {key}: all that it wrote is taken back on every replica, and what it writes does not count"
    )


def unban(key: Banned, run: Where) -> None:
    """Bring back what a banned key has written.

    Example: `shared-seed unban 5f3a… --run runs/quickstart`
    """
    _order(key, run, banned=False)
    typer.echo(f"unbanned  {key}: what it wrote counts again on every replica")


def _order(text: str, run: str, banned: bool) -> None:
    public, (owner, guest) = identity.parse(text), authors.guest(Settings())
    contents = None if run.startswith("tcp://") else log.read(Path(run) / LOG_NAME)
    manifest = contents.manifest if contents else fetch_manifest(run, owner, guest)[0]
    if owner.public != manifest.owner_bytes:
        raise RecipeError(
            f"only the owner of the run, {manifest.owner}, can ban, and yours is {identity.show(owner.public)}; "
            f"run this where the owner's key lies, or name its file by {identity.VARIABLE}"
        )
    if public == owner.public:
        raise RecipeError("that is the owner's own key; expected that of another peer")
    order = Order.issue(owner, manifest.seal, clock.stamp(), public, banned)
    if contents is None:
        bring(run, owner, guest, manifest, order)
    else:
        given = [each for each in contents.statements if isinstance(each, Order) and each.key == public]
        order = order.after(owner, manifest.seal, max(given, key=lambda each: each.rank, default=None))
        run_log = RunLog.resume(Path(run) / LOG_NAME, contents)
        run_log.append([order], [])
        run_log.close()

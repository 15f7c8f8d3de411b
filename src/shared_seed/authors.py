"""As whom a session writes: its key, its peer, and the stream that this process goes on with or begins."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from shared_seed import folder, identity
from shared_seed.admission import LABEL_SIZE, Introduction, Invite
from shared_seed.identity import Key
from shared_seed.manifest import Manifest
from shared_seed.messages import Stream
from shared_seed.settings import Settings
from shared_seed.swarm.author import Author

if TYPE_CHECKING:
    from shared_seed.snapshot import Snapshot  # It needs torch, which a relay does without.


def guest(settings: Settings) -> tuple[Key, Introduction]:
    """As whom one asks for a run's terms: the user's key, and an introduction that shows the invite if there is
    one.

    Raises:
        KeyFileError: the user's key cannot be used.
    """
    key = identity.load()
    invite = Invite.parse(settings.invite) if settings.invite is not None else None
    ticket = invite.admit(key, invite.run) if invite else b""
    return key, Introduction(key.public, secrets.token_bytes(LABEL_SIZE), ticket)


def author(settings: Settings, manifest: Manifest, resume: Snapshot | None) -> Author:
    """The author of a session.

    Where the folder knows a peer of our key, it goes on with that peer's next incarnation; a checkpoint goes on in
    its own stream. A peer with a number is the same one in every run that is made alike.

    Raises:
        KeyFileError: the user's key cannot be used.
        LogError: the folder's note is damaged.
        RecipeError: the invite is to another run.
    """
    run = manifest.run_bytes
    if not manifest.owner:
        peer = settings.peer_name(manifest.run)
        new = Stream(peer) if peer else Stream.fresh()
        return Author(resume.stream if resume else new, settings.name)
    key = identity.load()
    known = (resume.stream, resume.label) if resume else folder.noted_stream(settings.folder)
    if known is not None:
        stream, label = known
        ours = _introduction(key, label, settings, manifest)
        if ours.peer(run) == stream.peer:
            return Author(stream if resume else stream.restarted(), settings.name, key, ours)
    ours = _introduction(key, settings.label(), settings, manifest)
    return Author(Stream(ours.peer(run)), settings.name, key, ours)


def as_peer(snapshot: Snapshot, settings: Settings, note: bytes | None, source: str) -> Snapshot:
    """A checkpoint that another process of the same launch wrote, as the peer with these settings has it.

    Args:
        snapshot: of the other process.
        settings: of this one.
        note: which this one has left with the checkpoint; without it, what it had learnt is not known.
        source: where the note is from, for errors.

    Raises:
        KeyFileError: the user's key cannot be used.
        LogError: the note is damaged.
    """
    if note is not None:
        return snapshot.noted(note, source)
    manifest = snapshot.contents.manifest
    if not manifest.owner:
        return snapshot.of_peer(settings.peer_name(manifest.run))
    ours = Introduction(identity.load().public, settings.label())
    return snapshot.of_peer(ours.peer(manifest.run_bytes), ours.label)


def _introduction(key: Key, label: bytes, settings: Settings, manifest: Manifest) -> Introduction:
    ticket = b""
    if settings.invite is not None and manifest.admission.mode == "invite":
        ticket = Invite.parse(settings.invite).admit(key, manifest.seal)
    return Introduction(key.public, label if len(label) == LABEL_SIZE else secrets.token_bytes(LABEL_SIZE), ticket)

"""A relay: keeps a run's archive and passes it on, without a model.

It needs no trust, since all that it passes on is signed, and no run of its own: it takes the terms from its
folder, from another relay or peer, or from the first peer that dials it. Peers behind NAT dial out to it; relays
may dial relays.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shared_seed import authors, clock, folder, history, identity
from shared_seed.archive import Archive
from shared_seed.errors import LogError, RefusedError
from shared_seed.log import Contents, RunLog
from shared_seed.manifest import Manifest
from shared_seed.news import News
from shared_seed.settings import Settings
from shared_seed.swarm.answers import Supply
from shared_seed.swarm.author import Terms
from shared_seed.swarm.protocol import Protocol
from shared_seed.swarm.wire import State
from shared_seed.swarm.zmq import Swarm, await_manifest, fetch_manifest

GATHER = 0.05
"""Seconds between two looks at least, so that many messages are written at once."""

LOOK = 1.0
"""Seconds between two looks at what is new, where nothing is."""

STATED = 1 / 16
"""Of the log's limit, in statements, after which it is written anew with those that still hold."""

RATE_WINDOW = 60.0
"""Seconds that rates are means over."""


@dataclass(frozen=True, kw_only=True)
class RelaySettings:
    """How a relay works.

    Args:
        listen: ``tcp://HOST:PORT`` to accept peers at.
        join: addresses of relays or peers to dial; the first one gives the run's terms.
        folder: where the archive is kept.
        owners: public keys; only runs of these owners are taken. Without any, the first run that comes.
        name: what others see this relay as.
        invite: the token that admits it, where the run needs one.
        most_messages: beyond which it takes in no more; about 80 bytes of memory each.
        most_bytes: of the log, beyond which it takes in no more.
        supply: how fast it gives out what it keeps.
        patience: seconds to wait for whom it dials.
    """

    listen: str
    folder: Path
    join: tuple[str, ...] = ()
    owners: frozenset[bytes] = frozenset()
    name: str = "relay"
    invite: str | None = None
    most_messages: int = 5_000_000
    most_bytes: int = 4 << 30
    supply: Supply = field(default_factory=Supply)
    patience: float = 60.0

    def as_settings(self) -> Settings:
        """The same as those of a peer."""
        return Settings(listen=self.listen, join=self.join, folder=self.folder, name=self.name, invite=self.invite)


@dataclass
class Rates:
    """How much came lately: samples of (seconds, messages, bytes received, bytes sent)."""

    samples: deque[tuple[float, int, int, int]] = field(default_factory=deque)

    def note(self, now: float, messages: int, received: int, sent: int) -> None:
        """Take a sample."""
        self.samples.append((now, messages, received, sent))
        while len(self.samples) > 2 and now - self.samples[0][0] > RATE_WINDOW:
            self.samples.popleft()

    def per_second(self) -> tuple[float, float, float]:
        """Messages, bytes received and bytes sent a second."""
        if len(self.samples) < 2:
            return 0.0, 0.0, 0.0
        (then, *first), (now, *last) = self.samples[0], self.samples[-1]
        messages, received, sent = ((b - a) / max(now - then, 1e-9) for a, b in zip(first, last, strict=True))
        return messages, received, sent


class Relay:
    """A relay that runs. Open one, :meth:`step` until it is to end, :meth:`close`."""

    def __init__(self, settings: RelaySettings, terms: Contents, logged: Contents | None) -> None:
        """Take up the archive in the folder and connect; :meth:`open` finds the arguments.

        Raises:
            LogError: the log in the folder cannot be used.
            SwarmError: the address is in use, or a host does not exist.
        """
        self.settings = settings
        manifest = self.manifest = terms.manifest
        self.rates = Rates()
        self.trouble = ""
        self.began = clock.now()
        self._unwritten = News()
        self._signature = terms.signature
        self._stated = sum(len(each.encode()) for each in logged.statements) if logged else 0
        self._log: RunLog | None = folder.open_log(settings.folder, terms, logged)
        archive = Archive(manifest) if logged is None else history.archive_of(logged)
        archive.hold_at_most(settings.most_messages)
        author = authors.author(settings.as_settings(), manifest, None)
        assert author.key is not None
        assert author.introduction is not None
        folder.note_stream(settings.folder, author.stream, author.introduction.label)
        agreed = Terms.of(manifest, terms.signature)
        protocol = Protocol(author, agreed, archive, first_beat=clock.stamp(), supply=settings.supply)
        limit = manifest.limits.bytes_per_second
        self.swarm = Swarm(protocol, author.key, settings.listen, settings.join, limit)
        self.swarm.enter(State.RELAYING, 0)

    @classmethod
    def open(cls, settings: RelaySettings, tell: Callable[[str], None]) -> Relay:
        """Find a run to relay: in the folder, at the first address to dial, or with the first peer that comes.

        Args:
            settings: the relay's.
            tell: is told what it waits for.

        Raises:
            SharedSeedError: as the constructor and :func:`fetch_manifest`.
        """
        logged = folder.logged(settings.folder)
        if logged is not None:
            _check_owner(settings, logged.manifest, str(settings.folder))
            return cls(settings, logged, logged)
        key, guest = authors.guest(settings.as_settings())
        if settings.join:
            manifest, signature = fetch_manifest(settings.join[0], key, guest, settings.patience)
            _check_owner(settings, manifest, settings.join[0])
        else:
            tell("waiting for a peer that brings a run")
            manifest, signature = await_manifest(settings.listen, key, settings.owners, tell)
        return cls(settings, Contents(manifest, signature=signature), None)

    def step(self) -> None:
        """Wait for what comes, a second at most, and write it down."""
        clock.rest(GATHER)
        self.swarm.wait(lambda protocol, now: protocol.archive.has_news, LOOK)
        news = self.swarm.ask(lambda protocol, now: protocol.take())
        self._unwritten.heard += news.heard
        self._unwritten.statements += news.statements
        self._write()
        traffic, messages = self.swarm.traffic, self.swarm.ask(lambda protocol, now: len(protocol.archive))
        self.rates.note(clock.now(), messages, traffic.received, traffic.sent)

    def close(self) -> None:
        """Leave the swarm and close the log."""
        self.swarm.close()
        self._write()
        if self._log is not None:
            self._log.close()

    @property
    def log_bytes(self) -> int:
        """Bytes of the log."""
        return self._log.path.stat().st_size if self._log else 0

    def _write(self) -> None:
        """Write what is not written yet; what the disk has no room for stays in memory, and is tried again."""
        if self._log is None or not (self._unwritten.heard or self._unwritten.statements):
            return
        try:
            self._log.append(self._unwritten.statements, self._unwritten.heard)
            self._stated += sum(len(each.encode()) for each in self._unwritten.statements)
        except LogError as error:
            self.trouble = str(error)
            # Messages that wait are bounded, since the archive takes no more; statements that wait are as long as
            # they hold.
            waiting = self._unwritten.statements
            self._unwritten.statements = self.swarm.ask(lambda p, now: history.standing(p.archive, waiting))
        else:
            self._unwritten, self.trouble = News(), ""
            if self._stated >= STATED * self.settings.most_bytes:
                self._shrink(self._log)
        if self.log_bytes >= self.settings.most_bytes or self.trouble:
            self.trouble = self.trouble or f"the log has reached its limit of {self.settings.most_bytes:,} bytes"
        most = 0 if self.trouble else self.settings.most_messages
        self.swarm.ask(lambda protocol, now: protocol.archive.hold_at_most(most))

    def _shrink(self, run_log: RunLog) -> None:
        """Write the log anew without statements that hold no longer: whoever is admitted can make ever new ones.

        Where there is no room for that, the log goes on as it was, until as many more have come.
        """
        self._stated = 0
        self._unwritten, contents = self.swarm.ask(
            lambda p, now: (p.take(), history.contents_of(p.archive, self.manifest, self._signature))
        )
        with contextlib.suppress(LogError):
            run_log.replace(contents)
            self._unwritten = News()  # It is in the contents.


def _check_owner(settings: RelaySettings, manifest: Manifest, where: str) -> None:
    """Make sure that a run is one of those that this relay takes.

    Raises:
        RefusedError: it is another's.
    """
    if settings.owners and manifest.owner_bytes not in settings.owners:
        known = ", ".join(sorted(map(identity.show, settings.owners)))
        raise RefusedError(
            f"the run of {where} has owner {manifest.owner or 'nobody'}, and this relay takes those of {known}; "
            "name its owner with --owner, or another folder with --out"
        )

"""How far one peer's steps go: by what a Trainer says, or by what the peer's own projected gradients say.

Here meet what is taken off them (:mod:`shared_seed.curvature`), what is added (:mod:`shared_seed.decay`), and the
learning rate (:mod:`shared_seed.rate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared_seed import decay
from shared_seed.curvature import Curvature
from shared_seed.manifest import Manifest
from shared_seed.messages import Message
from shared_seed.noise import Sample
from shared_seed.optimizer import Groups
from shared_seed.pending import Pending
from shared_seed.probe import Measurement
from shared_seed.rate import Rate
from shared_seed.settings import Settings
from shared_seed.training import MOST_ROUNDS
from shared_seed.weights import Weights


class Stride:
    """Follows one peer's projected gradients.

    Args:
        settings: the peer's.
        manifest: of the run.
        groups: what the Trainer's optimizer says; by default a learning rate of 1 to begin with, and no decay.

    Attributes:
        loudness: of weight decay in the first projected gradients.
    """

    def __init__(self, settings: Settings, manifest: Manifest, groups: Groups | None) -> None:
        self._manifest = manifest
        self._linear = settings.schedule == "linear"
        self._curvature = Curvature(manifest.scale_exponent, settings.directions)
        self._rate: Rate | None = None
        if settings.promise is not None:
            # Other rules do not step as far as messages say, so that nothing follows from what they deliver.
            follow = manifest.aggregation.kind == "sum"
            self._rate = Rate(
                settings.promise,
                manifest.epsilon,
                manifest.scale_exponent,
                self._curvature,
                follow=follow,
                peers=manifest.start_with,
            )
        self._base = groups.base if groups else 1.0
        self._decays = groups.decays if groups else {}
        self.loudness = decay.Loudness()

    @property
    def finds(self) -> bool:
        """Whether the learning rate is found, so that what rows have in common is asked for."""
        return self._rate is not None

    def gradient(self, measured: Measurement, weights: Weights, sample: Sample) -> float:
        """What a measurement along a sample's direction, at sign 0 again, is published as."""
        gradient = measured.gradient - self._curvature.excess
        if self._decays:
            shrinking = decay.projected(weights, self._decays, sample)
            self.loudness.note(measured.gradient, shrinking)
            gradient += shrinking
        return gradient

    def learning_rate(self, trainers: float, number: int, pending: Pending) -> float:
        """Of what is pending, all probes together, which is about to be published.

        Args:
            trainers: what the Trainer says now.
            number: of the round.
            pending: probes.
        """
        self._curvature.note(pending.codes)
        if self._rate is None:
            return trainers * self._schedule(number)
        self._rate.note(pending.codes)
        left = self._manifest.rounds - number if self._manifest.rounds < MOST_ROUNDS else None
        self._rate.learn(pending.loss, pending.rows, left)
        # OneCycleLR begins at a 25th of what it rises to; the found rate is the largest.
        schedule = min(1.0, trainers / self._base) if self._base else 0.0
        schedule *= self._schedule(number)
        return len(pending.codes) * min(schedule * self._rate.value(), self._manifest.limits.learning_rate)

    def went(self, messages: Iterable[Message]) -> None:
        """Note that the weights have gone by these messages, everybody's."""
        if self._rate is not None:
            self._rate.went(messages)

    def resume(self, messages: Iterable[Message], own: Sequence[Message]) -> None:
        """Follow what has been published, by everybody and, in order, by this peer."""
        self._curvature.follow(message.codes for message in own)
        if self._rate is not None:
            self._rate.resume(messages, own, self._schedule)

    @property
    def learnt(self) -> tuple[float, ...]:
        """What is known beside the messages, for :meth:`restore`."""
        return self._rate.state if self._rate is not None else ()

    def restore(self, learnt: Sequence[float]) -> None:
        """Know again what was :attr:`learnt`."""
        if self._rate is not None:
            self._rate.restore(learnt)

    def _schedule(self, number: int) -> float:
        """The part of a learning rate that steps of a round go by."""
        return 1 - number / self._manifest.rounds if self._linear else 1.0

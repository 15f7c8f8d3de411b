"""A swarm in lockstep that one process plays: its replicas would be identical, so there is one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hostility import reviews
from hostility.behaviour import Attack, View
from hostility.reviews import Reviews
from shared_seed import codec, replay
from shared_seed.errors import HeadroomError
from shared_seed.log import Contents
from shared_seed.manifest import Aggregation, Limits, Manifest
from shared_seed.messages import Message, Stream, as_float32, directions_of
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Probe
from shared_seed.replica import Replica
from shared_seed.signed import Signed
from shared_seed.weights import Weights, frozen_digest

EPSILON = 2.0**-8
SCALE_EXPONENT = -4


def terms(model: nn.Module, weights: Weights, seed: int, **more: Any) -> Manifest:
    """The manifest of a game: what all of them agree on, and what else it says."""
    return Manifest(
        run=random.Random(seed).randbytes(16).hex(),
        model="reviews",
        frozen_digest=frozen_digest(model, weights),
        tensors=weights.specs(),
        epsilon=EPSILON,
        scale_exponent=SCALE_EXPONENT,
        **more,
    )


"""Honest gradients are a few tenths, which are a few units of a byte; its largest value is 448 units."""


SUM = Aggregation()


@dataclass(frozen=True)
class Scale:
    """How long and how large; ``rate`` is each peer's learning rate at the start, from where it falls to 0."""

    rounds: int = 120
    batch: int = 64
    rate: float = 0.014
    shared_rate: float = 0.006
    seeds: int = 3


@dataclass(frozen=True)
class Defence:
    """How a round is aggregated, and whether the hostile are banned halfway, or before that where the run stops.

    Without ``limited`` a message may ask for a learning rate of 1, as by default; else for no more than the honest
    begin with.
    """

    name: str
    rule: Aggregation = SUM
    limited: bool = True
    banned: bool = False


@dataclass(frozen=True)
class Outcome:
    """Test accuracy at the end, and ``excluded`` that of a replay without the hostile peers' messages.

    ``rounds`` are those done before a weight came to the end of its grid, which stops a run. ``in_place`` tells
    whether taking the messages back gave the digest of that replay; it is ``None`` where a weight would have come
    to the end of its grid on the way, so that nothing was taken back.
    """

    accuracy: float
    excluded: float
    rounds: int
    in_place: bool | None


class Game:
    """One run: honest peers 0, 1, ... and after them the hostile ones, each with its shard of the sentences."""

    def __init__(self, data: Reviews, scale: Scale, attack: Attack, defence: Defence, seed: int) -> None:
        self.data, self.scale, self.attack, self.defence, self.seed = data, scale, attack, defence, seed
        self.shared = defence.rule.shared
        self.rate = scale.shared_rate if self.shared else scale.rate
        self.streams = [Stream(bytes([peer]) * 12) for peer in range(attack.peers)]
        self.hostile = set(self.streams[attack.peers - attack.hostile :])
        self.draw = random.Random(seed)
        self.kept: list[Message] = []
        self.banned = False
        self.model = reviews.model(seed)
        weights = Weights.of(self.model, EPSILON)
        self.replica = Replica(weights, self._manifest(weights))
        self.probe = Probe(self.model, Perturbation(weights, EPSILON))

    def _manifest(self, weights: Weights) -> Manifest:
        return terms(
            self.model,
            weights,
            self.seed,
            rounds=self.scale.rounds,
            start_with=self.attack.peers,
            limits=Limits(learning_rate=self.rate if self.defence.limited else 1.0, samples_per_message=1),
            aggregation=self.defence.rule,
        )

    def play(self) -> Outcome:
        """Train, test, take the hostile peers' messages back, test again."""
        done, stopped = 0, False
        while done < self.scale.rounds and not stopped:
            try:
                self._round(done)
                done += 1
            except HeadroomError:  # the weights are as before the round, and the run cannot go on as it is
                stopped = self.banned or not self.defence.banned
                self._ban()
        accuracy = reviews.accuracy(self.model, self.data.test)
        try:
            self.replica.apply([m for m in self.kept if m.stream in self.hostile], sign=-1)
            taken_back = True
        except HeadroomError:
            taken_back = False
        model, again = self._without_hostile()
        in_place = again.digest() == self.replica.digest() if taken_back else None
        return Outcome(accuracy, reviews.accuracy(model, self.data.test), done, in_place)

    def _without_hostile(self) -> tuple[nn.Sequential, Replica]:
        """The first weights, and on them all messages but those of the hostile peers."""
        self.kept = [m for m in self.kept if m.stream not in self.hostile]
        model = reviews.model(self.seed)
        kept = [Signed(message) for message in self.kept]
        return model, replay.rebuild(model, Contents(self.replica.manifest, kept))

    def _round(self, round_: int) -> None:
        if self.defence.banned and round_ >= self.scale.rounds // 2:
            self._ban()
        messages = self._messages(round_)
        self.replica.apply(messages)
        self.kept += messages

    def _ban(self) -> None:
        """Go on without what the hostile peers have published, and hear them no more, if that is the defence."""
        if self.defence.banned and not self.banned:
            self.model, self.replica = self._without_hostile()
            self.probe = Probe(self.model, Perturbation(self.replica.weights, EPSILON))
            self.banned = True

    def _messages(self, round_: int) -> list[Message]:
        """What all peers that are heard publish in a round."""
        count = self.attack.peers - self.attack.hostile
        codes = [self._encoded(self._measure(peer, round_)) for peer in range(count)]
        rate = as_float32(self.rate * (1 - round_ / self.scale.rounds))
        out = [Message(self.streams[peer], round_, round_, rate, bytes([code])) for peer, code in enumerate(codes)]
        if self.banned:
            return out
        said = [codec.decode(code, SCALE_EXPONENT) for code in codes]
        measured = [self._measure(peer, round_) for peer in range(count, self.attack.peers)]
        acted = self.attack.act(View(said, measured, self.shared, self.draw))
        if self.attack.loud:
            rate = as_float32(self.replica.manifest.limits.learning_rate)
        for stream, gradient in zip(self.streams[count:], acted, strict=True):
            out.append(Message(stream, round_, round_, rate, bytes([self._encoded(gradient)])))
        return out

    def _encoded(self, gradient: float) -> int:
        return codec.encode(gradient, SCALE_EXPONENT)

    def _measure(self, peer: int, round_: int) -> float:
        """The projected gradient that a peer measures on a batch of its shard."""
        train, of = self.data.train, self.attack.peers
        shard = range(peer, len(train.labels), of)
        batch = torch.tensor(self.draw.choices(shard, k=self.scale.batch))
        inputs, labels = train.inputs[batch], train.labels[batch]

        def loss() -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(self.model(inputs)[:, 0], labels)

        names = directions_of(self.replica.manifest.run_bytes, self.streams[peer], round_, round_, self.shared)
        return self.probe.measure(loss, Sample(*names, 0)).gradient


def play(data: Reviews, scale: Scale, attack: Attack, defence: Defence) -> Sequence[Outcome]:
    """The same run with several seeds, which name the noise, the first weights and the batches."""
    return [Game(data, scale, attack, defence, seed).play() for seed in range(scale.seeds)]

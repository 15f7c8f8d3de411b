"""The methods, each with the same batches: shared-seed with the project's own parts, MeZO, and backpropagation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase
from statistics import mean
from typing import Any

import numpy as np
import torch

from common import mezo
from convergence.bench import Bench
from convergence.spec import Spec
from shared_seed import codec, update
from shared_seed.curvature import Curvature
from shared_seed.messages import Message, Stream, as_float32
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Probe
from shared_seed.rate import Rate
from shared_seed.weights import Choice, Weights

Taken = tuple[list[tuple[Sample, float]], Message]
"""How far to go along each direction of a peer's probe, and what it would publish."""


class Method(ABC):
    """One way of training; ``rates`` are the learning rates of the probes so far, ``sent`` the bytes of a peer."""

    def __init__(self, bench: Bench, spec: Spec) -> None:
        self.bench, self.spec = bench, spec
        bench.temperature = bench.before = spec.temperature
        self.rates: list[float] = []
        self.sent = 0

    def computing(self) -> AbstractContextManager[Any]:
        """What forward passes are in; while weights stay, one such context casts them once."""
        return torch.autocast("cpu", torch.bfloat16) if self.spec.precision == "bf16" else nullcontext()

    @abstractmethod
    def step(self, number: int) -> None:
        """Make one round."""


class SharedSeed(Method):
    """Peers in lockstep; their replicas would be identical, so there is one."""

    def __init__(self, bench: Bench, spec: Spec) -> None:
        super().__init__(bench, spec)
        names = [name for name, p in bench.model.named_parameters() if p.requires_grad]
        rates = {name: 1.0 for name in names if any(fnmatchcase(name, part) for part in spec.only.split("|"))}
        choice = Choice(dense=("*",) if spec.dense else (), rates=rates)
        self.weights = Weights.of(bench.model, spec.epsilon, choice)
        self._probe = Probe(bench.model, Perturbation(self.weights, spec.epsilon))
        self._batches = [
            bench.batches(spec.batch, 1000 * spec.seed + peer, slice(peer, None, spec.peers), even=spec.even)
            for peer in range(spec.peers)
        ]
        promise = spec.promise / spec.temperature
        self._curvatures = [Curvature(0, spec.directions) for _ in range(spec.peers)]
        self._found = [
            Rate(promise, spec.epsilon, 0, each, follow=spec.follow, peers=spec.peers) for each in self._curvatures
        ]
        self._late: deque[list[Taken]] = deque()

    def step(self, number: int) -> None:
        """A probe of every peer, and all of them applied, the others' maybe some rounds later."""
        self.bench.temperature, self.bench.before = map(self.spec.temperature_at, (number, max(0, number - 1)))
        own, *others = [self._take(peer, number) for peer in range(self.spec.peers)]
        self._late.append(others)
        now = [own, *(self._late.popleft() if len(self._late) > self.spec.behind else [])]
        steps = [step for taken, _ in now for step in taken]
        update.apply(self.weights, [s for s, _ in steps], np.array([step for _, step in steps], np.float64))
        for found in self._found:
            found.went([message for _, message in now])
        self.sent += self.spec.directions

    @property
    def believed(self) -> float:
        """The share that the first peer believes in."""
        return self._found[0].share

    def _take(self, peer: int, number: int) -> Taken:
        """A peer's probe."""
        spec, batch = self.spec, next(self._batches[peer])
        found, curvature = self._found[peer], self._curvatures[peer]
        samples = [Sample(self.spec.seed, number, peer * spec.directions + i) for i in range(spec.directions)]
        with self.bench.row_losses.heard():
            measured = self._probe.measure_all(lambda: self.bench.loss(batch), samples, self.computing())
        gradients = [m.gradient - curvature.excess for m in measured]
        codes = bytes(codec.encode(gradient) for gradient in gradients)
        found.note(codes)
        if spec.centred:
            curvature.note(codes)
        rows = self.bench.row_losses.shared(spec.epsilon, spec.directions)
        left = spec.steps - number if spec.plans else None
        found.learn(mean(m.loss for m in measured), rows if spec.rows else None, left)
        rate = found.value() if spec.rate is None else spec.rate / spec.directions
        rate = as_float32(rate * spec.factor(number))
        self.rates.append(rate)
        lengths = [self._coefficient(gradient, found.size) for gradient in gradients]
        steps = [(sample, -rate * length) for sample, length in zip(samples, lengths, strict=True)]
        return steps, Message(Stream(bytes([peer]) * 12), number, number, rate, codes)

    def _coefficient(self, gradient: float, size: float) -> float:
        """What a probe publishes; a sign is as long as gradients are in general, so that rates compare."""
        if self.spec.coefficient == "float":
            return gradient
        if self.spec.coefficient == "sign":
            return float(np.sign(gradient)) * size
        return codec.decode(codec.encode(gradient))


class Mezo(Method):
    """MeZO (Malladi et al. 2023), Algorithm 1: normal directions, in place.

    Each direction is drawn once a step and kept: faster, at the memory that the algorithm is there to save.
    """

    def __init__(self, bench: Bench, spec: Spec) -> None:
        super().__init__(bench, spec)
        self._batches = bench.batches(spec.batch, 1000 * spec.seed)
        assert spec.rate is not None

    def step(self, number: int) -> None:
        """Two forward passes, four passes over the weights."""
        assert self.spec.rate is not None
        batch, rate = next(self._batches), self.spec.rate * self.spec.factor(number)
        self.rates.append(rate)
        seed = 1_000_003 * self.spec.seed + number
        mezo.descend(self.bench.model, lambda: self._loss(batch), seed, rate, keep=True)

    @torch.no_grad()
    def _loss(self, batch: object) -> float:
        with self.computing():
            return float(self.bench.loss(batch))  # type: ignore[arg-type]


class Backprop(Method):
    """AdamW on the gradient: the ceiling, at many times the memory."""

    def __init__(self, bench: Bench, spec: Spec) -> None:
        super().__init__(bench, spec)
        self._batches = bench.batches(spec.batch, 1000 * spec.seed)
        assert spec.rate is not None
        trained = [p for p in bench.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, spec.rate)

    def step(self, number: int) -> None:
        """One forward and one backward pass."""
        assert self.spec.rate is not None
        rate = self.spec.rate * self.spec.factor(number)
        self.rates.append(rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with self.computing():
            loss = self.bench.loss(next(self._batches))
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()


METHODS: dict[str, Callable[[Bench, Spec], Method]] = {"ours": SharedSeed, "mezo": Mezo, "adamw": Backprop}

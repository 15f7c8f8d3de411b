"""What an audit can tell: honest differences, the power against dishonest bytes, and what it costs.

    python benchmarks/audit.py recipes/quickstart.yaml
    python benchmarks/audit.py recipes/quickstart.yaml --quick

Peers are played one after the other in this process, in lockstep and on assigned batches. Each gradient is then
taken again in other ways: with two threads, in fp32, at weights that lack what the others published last, and on
public rows along the same direction.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from shared_seed import codec, data, recipe, verdict
from shared_seed.audit import LEAST
from shared_seed.batches import AssignedBatches
from shared_seed.integrations.transformers.models import load
from shared_seed.manifest import Limits, Manifest
from shared_seed.messages import Message, Stream, as_float32
from shared_seed.noise import Sample, stream_key
from shared_seed.perturbation import Perturbation
from shared_seed.precision import resolve
from shared_seed.probe import Probe
from shared_seed.replica import Replica
from shared_seed.text_task import Batch
from shared_seed.text_tasks import build
from shared_seed.weights import Weights

LEARNING_RATE = 5e-5
"""Where a recipe has it found: near what is found for the quickstart."""

RUN = "00112233445566778899aabbccddeeff"
HONEST = ("again", "two threads", "other precision", "late messages")
"""Ways in which an honest gradient may be taken again."""

OFTEN = 4
"""Every how many rounds gradients are taken again in all ways, and not in the other precision alone."""

ATTACKS = ("flipped signs", "another's bytes", "its own bytes again", "zeros")


@dataclass
class Taken:
    """One byte, and the gradients of its direction, each taken in another way."""

    stream: Stream
    code: int
    gradient: float
    gradients: dict[str, float] = field(default_factory=dict)


@dataclass
class Swarm:
    """Some peers' model, data and time, all in one process."""

    model: Any
    replica: Replica
    probe: Probe
    assigned: AssignedBatches
    public: AssignedBatches
    bf16: bool
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def gradient(self, sample: Sample, batch: Batch, what: str, bf16: bool) -> float:
        """The projected gradient of a batch, in bf16 autocast or not; ``what`` names its time."""
        began = perf_counter()
        context = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
        gradient = self.probe.measure(partial(self.assigned.loss, self.model, batch), sample, context).gradient
        self.seconds.setdefault(what, []).append(perf_counter() - began)
        return gradient

    def apply(self, messages: Sequence[Message], sign: int = 1) -> None:
        """Move the weights."""
        began = perf_counter()
        self.replica.apply(messages, sign)
        self.seconds.setdefault("update", []).append(perf_counter() - began)


def swarm_of(terms: recipe.Recipe, public_rows: int) -> Swarm:
    """The recipe's model and data, before the first round."""
    model, tokenizer = load(terms.model, terms.lora, terms.training.seed, terms.weights)
    training = terms.training
    weights = Weights.of(model, training.epsilon)
    manifest = Manifest(
        run=RUN,
        model=terms.model,
        frozen_digest="00",
        tensors=weights.specs(),
        epsilon=training.epsilon,
        scale_exponent=training.scale_exponent,
        rounds=training.steps,
        start_with=1,
        limits=Limits(learning_rate=1.0, samples_per_message=1),
    )
    task = build(terms.task, tokenizer, model)
    rows = data.split(data.load(terms.dataset), terms.task, training.seed)
    return Swarm(
        model,
        Replica(weights, manifest),
        Probe(model, Perturbation(weights, training.epsilon)),
        AssignedBatches(task, task.encode(rows.train), training.batch_size, training.seed),
        AssignedBatches(task, task.encode(rows.test), public_rows, training.seed),
        resolve(terms, "cpu").bf16,
    )


def play(swarm: Swarm, peers: int, rounds: int, learning_rate: float) -> Iterator[Taken]:
    """Let honest peers train, and take each of their gradients again in every way."""
    streams = [Stream(bytes([number]) * 12) for number in range(peers)]
    exponent = swarm.replica.manifest.scale_exponent
    before: list[Message] = []
    for round_ in range(rounds):
        messages = []
        for stream in streams:
            sample = Sample(stream_key(bytes.fromhex(RUN), stream.to_bytes()), round_, 0)
            batch = swarm.assigned.batch(stream, round_, 0)
            gradient = swarm.gradient(sample, batch, "probe", swarm.bf16)
            taken = Taken(stream, codec.encode(gradient, exponent), gradient)
            messages.append(Message(stream, round_, round_, as_float32(learning_rate), bytes([taken.code])))
            taken.gradients["other precision"] = swarm.gradient(sample, batch, "other precision", not swarm.bf16)
            if round_ % OFTEN == 1:
                others = [m for m in before if m.stream != stream]
                taken.gradients |= take_again(swarm, sample, batch, others)
            public = swarm.public.batch(stream, round_, 0)
            taken.gradients["public"] = swarm.gradient(sample, public, "public", swarm.bf16)
            yield taken
        swarm.apply(messages)
        before = messages


def take_again(swarm: Swarm, sample: Sample, batch: Batch, others: Sequence[Message]) -> dict[str, float]:
    """The same gradient as others may find it; ``others`` are the messages that a peer may not have had yet."""
    gradients = {"again": swarm.gradient(sample, batch, "again", swarm.bf16)}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        gradients["two threads"] = swarm.gradient(sample, batch, "two threads", swarm.bf16)
    finally:
        torch.set_num_threads(threads)
    swarm.replica.apply(others, -1)
    gradients["late messages"] = swarm.gradient(sample, batch, "late messages", swarm.bf16)
    swarm.replica.apply(others)
    return gradients


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Args:
        scale: root mean square of the gradients.
        differences: by way: root mean square, 99th percentile and largest distance from the byte, and the share
            beyond the tolerance; in units of ``scale``.
        power: by attack, the chance that one audited byte mismatches.
        correlation: of bytes with public gradients.
        probe: seconds of an audited message.
        step: seconds of a training step: a probe, and the update with all peers' bytes.
        public: seconds of a gradient on public rows.
    """

    scale: float
    differences: dict[str, tuple[float, float, float, float]]
    power: dict[str, float]
    correlation: float
    probe: float
    step: float
    public: float


def figures(taken: Sequence[Taken], swarm: Swarm) -> Figures:
    """Work the measurements out."""
    exponent = swarm.replica.manifest.scale_exponent
    scale = math.sqrt(sum(t.gradient**2 for t in taken) / len(taken))

    def apart(code: Callable[[int], int], way: str) -> Any:
        """Distances of the gradients taken in one way from what was published."""
        found = [
            verdict.distance(t.gradients.get(way, t.gradient), code(i), exponent)
            for i, t in enumerate(taken)
            if way == "probe" or way in t.gradients
        ]
        return np.array(found) / scale

    differences = {}
    for way in HONEST:
        far = apart(lambda i: taken[i].code, way)
        beyond = float((far > verdict.TOLERANCE).mean())
        differences[way] = (
            float(np.sqrt((far**2).mean())),
            float(np.quantile(far, 0.99)),
            float(far.max()),
            beyond,
        )
    peers = len({t.stream for t in taken})
    published = {
        "flipped signs": lambda i: taken[i].code ^ 0x80,
        "another's bytes": lambda i: taken[i - 1].code,
        "its own bytes again": lambda i: taken[i - peers].code,
        "zeros": lambda i: 0,
    }
    power = {name: float((apart(published[name], "probe") > verdict.TOLERANCE).mean()) for name in ATTACKS}
    pairs = np.array([(codec.decode(t.code, exponent), t.gradients["public"]) for t in taken])
    times = {name: median(values) for name, values in swarm.seconds.items()}
    return Figures(
        scale,
        differences,
        power,
        verdict.correlation(pairs),
        times["probe"],
        times["probe"] + times["update"],
        times["public"],
    )


def chance_to_name(audited: int, power: float, streams: int) -> float:
    """The chance that a stream is named after so many audited bytes, each of which mismatches at ``power``."""
    for enough in range(1, audited + 1):
        if verdict.at_least(enough, audited, verdict.HONEST_RATE) < verdict.DOUBT / streams:
            return verdict.at_least(enough, audited, power)
    return 0.0


def show(found: Figures, streams: int, shares: Sequence[float], messages: Sequence[int]) -> None:
    """Print everything."""
    print(f"gradients of root mean square {found.scale:.3g}; distances from the byte in this unit")
    print(f"{'taken again':20} {'rms':>8} {'99 %':>8} {'largest':>8}  beyond {verdict.TOLERANCE:g}")
    for way, (spread, most, largest, beyond) in found.differences.items():
        print(f"{way:20} {spread:8.4f} {most:8.4f} {largest:8.4f}  {beyond:.1%}")
    print(f"chance that a byte mismatches, and that its stream of {streams} is named after so many messages")
    head = " ".join(f"{count:>5} at {share:.0%}" for share in shares for count in messages)
    print(f"{'attack':20} {'a byte':>7} {head}")
    for attack, power in found.power.items():
        cells = [
            chance_to_name(min(count, max(LEAST, math.ceil(share * count))), power, streams)
            for share in shares
            for count in messages
        ]
        print(f"{attack:20} {power:7.1%} " + " ".join(f"{cell:>11.1%}" for cell in cells))
    r = found.correlation
    print(
        f"public rows: correlation {r:+.3f}; audited messages to tell random bytes "
        f"{verdict.messages_needed(r, 0.0)}, flipped signs {verdict.messages_needed(r, -r)}"
    )
    print(
        f"seconds: an audited message {found.probe:.2f}, a training step {found.step:.2f} "
        f"(ratio {found.probe / found.step:.2f}), on public rows {found.public:.2f}"
    )


def measure(path: Path, peers: int = 3, rounds: int = 40, public_rows: int = 64) -> Figures:
    """Play a swarm on a recipe's terms, and print and return what an audit of it could tell."""
    terms = recipe.load(path)
    swarm = swarm_of(terms, public_rows)
    rate = terms.training.base_rate if terms.promise is None else LEARNING_RATE
    taken = list(play(swarm, peers, rounds, rate))
    found = figures(taken, swarm)
    show(found, peers, (0.02, 0.1), (50, 340, 1000))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--quick", action="store_true", help="two peers, five rounds")
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--public-rows", type=int, default=64)
    options = parser.parse_args()
    if options.quick:
        measure(options.recipe, 2, 5, 16)
    else:
        measure(options.recipe, options.peers, options.rounds, options.public_rows)

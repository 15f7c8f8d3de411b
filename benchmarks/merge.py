"""What does the union of a run that has parted do to accuracy? Test accuracy on real sentences.

    python benchmarks/merge.py                      # about ten minutes; writes docs/replay/
    python benchmarks/merge.py --quick --out /tmp/merge

One process plays ten peers, each with its shard of the Rotten Tomatoes sentences, with the project's own weights,
probes, messages, logs, merging and replay. They train together, then as two halves that hear nothing of each
other, then together again on the union of both halves' logs. One run that never parts makes as many messages.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn

from common import options
from hostility import reviews
from hostility.game import EPSILON, SCALE_EXPONENT, terms
from hostility.reviews import Reviews
from shared_seed import codec, merging, replay
from shared_seed.errors import HeadroomError
from shared_seed.log import Contents
from shared_seed.manifest import Limits, Manifest
from shared_seed.messages import Message, Stream, as_float32, directions_of
from shared_seed.noise import Sample
from shared_seed.perturbation import Perturbation
from shared_seed.probe import Probe
from shared_seed.replica import Replica
from shared_seed.signed import Signed
from shared_seed.weights import Weights

NAMES = ("left", "right", "union", "union, trained on", "never parted", "never parted, trained on")
"""The columns."""


@dataclass(frozen=True)
class Scale:
    """How long and how large: rounds together at first, apart (several lengths) and together again."""

    together: int = 60
    apart: Sequence[int] = (15, 60, 120, 240, 480)
    after: int = 30
    peers: int = 10
    batch: int = 64
    rates: Sequence[float] = (0.005, 0.014)
    seeds: int = 3


QUICK = Scale(10, (5, 10), 5, seeds=1)


@dataclass(frozen=True)
class Row:
    """One seed and length: accuracy, test loss, and distance from the weights at the parting, by column.

    ``exact`` tells whether taking one half's messages into the other's replica gave the digest that a replay of
    the merged log gave.
    """

    rate: float
    apart: int
    seed: int
    accuracy: dict[str, float]
    loss: dict[str, float]
    moved: dict[str, float]
    exact: bool


class Swarm:
    """Peers in lockstep: their replicas would be identical, so there is one, at the end of a log."""

    def __init__(
        self, data: Reviews, scale: Scale, rate: float, seed: int, contents: Contents | None = None
    ) -> None:
        self.data, self.scale, self.rate, self.seed = data, scale, rate, seed
        self.model = reviews.model(seed)
        if contents is None:
            weights = Weights.of(self.model, EPSILON)
            self.replica = Replica(weights, self._manifest(weights))
        else:
            self.replica = replay.rebuild(self.model, contents)
        self.kept = list(contents.messages) if contents else []
        self.probe = Probe(self.model, Perturbation(self.replica.weights, EPSILON))

    def _manifest(self, weights: Weights) -> Manifest:
        return terms(
            self.model,
            weights,
            self.seed,
            rounds=1 << 20,
            start_with=self.scale.peers,
            limits=Limits(learning_rate=1.0, samples_per_message=1),
        )

    @property
    def contents(self) -> Contents:
        """The log so far."""
        return Contents(self.replica.manifest, [Signed(message) for message in self.kept])

    @property
    def values(self) -> Tensor:
        """All weights, float32 [parameters]."""
        return torch.cat([t.values.flatten() for t in self.replica.weights])

    def train(self, peers: Sequence[int], rounds: range) -> None:
        """Let some peers take part in some rounds."""
        for round_ in rounds:
            messages = [self._message(peer, round_) for peer in peers]
            self.replica.apply(messages)
            self.kept += messages

    def _message(self, peer: int, round_: int) -> Message:
        stream, train = Stream(bytes([peer]) * 12), self.data.train
        draw = random.Random(f"{self.seed} {peer} {round_}")
        shard = range(peer, len(train.labels), self.scale.peers)
        batch = torch.tensor(draw.choices(shard, k=self.scale.batch))
        inputs, labels = train.inputs[batch], train.labels[batch]

        def loss() -> Tensor:
            return nn.functional.binary_cross_entropy_with_logits(self.model(inputs)[:, 0], labels)

        # Nobody misses a round, so that messages are numbered like rounds.
        names = directions_of(self.replica.manifest.run_bytes, stream, round_, round_, False)
        gradient = self.probe.measure(loss, Sample(*names, 0)).gradient
        code = codec.encode(gradient, SCALE_EXPONENT)
        return Message(stream, round_, round_, as_float32(self.rate), bytes([code]))

    def scores(self) -> tuple[float, float]:
        """Accuracy and loss on the test rows."""
        test = self.data.test
        with torch.no_grad():
            loss = nn.functional.binary_cross_entropy_with_logits(self.model(test.inputs)[:, 0], test.labels)
        return reviews.accuracy(self.model, test), float(loss)


def part(data: Reviews, scale: Scale, rate: float, seed: int) -> Iterator[Row]:
    """One run, and what its halves and their unions come to after each length apart."""
    everybody = range(scale.peers)
    halves = everybody[: scale.peers // 2], everybody[scale.peers // 2 :]
    whole = Swarm(data, scale, rate, seed)
    whole.train(everybody, range(scale.together))
    start = whole.values
    sides = [Swarm(data, scale, rate, seed, whole.contents) for _ in halves]
    done = scale.together
    for apart in sorted(scale.apart):
        rounds = range(done, scale.together + apart)
        whole.train(everybody, rounds)
        for side, peers in zip(sides, halves, strict=True):
            side.train(peers, rounds)
        done = rounds.stop
        yield _row(apart, sides, whole, start)


def _row(apart: int, sides: Sequence[Swarm], whole: Swarm, start: Tensor) -> Row:
    scale = whole.scale
    merged = merging.merge([side.contents for side in sides])
    union, unparted = (
        Swarm(whole.data, scale, whole.rate, whole.seed, contents) for contents in (merged, whole.contents)
    )
    exact = _taken_in(sides) == union.replica.digest()
    columns = {"left": sides[0], "right": sides[1], "union": union, "never parted": unparted}
    accuracy = {name: swarm.scores()[0] for name, swarm in columns.items()}
    loss = {name: swarm.scores()[1] for name, swarm in columns.items()}
    moved = {name: float((swarm.values - start).norm()) for name, swarm in columns.items()}
    begun = scale.together + apart
    for name in ("union", "never parted"):
        columns[name].train(range(scale.peers), range(begun, begun + scale.after))
        accuracy[f"{name}, trained on"], loss[f"{name}, trained on"] = columns[name].scores()
    return Row(whole.rate, apart, whole.seed, accuracy, loss, moved, exact)


def _taken_in(sides: Sequence[Swarm]) -> bytes:
    """The digest of one half's replica once it has heard the other half's messages."""
    left, right = sides
    replica = Swarm(left.data, left.scale, left.rate, left.seed, left.contents).replica
    known = set(left.kept)
    replica.apply([message for message in right.kept if message not in known])
    return replica.digest()


def measure(data: Reviews, scale: Scale) -> list[Row]:
    """All learning rates and seeds; prints a line for each row, and for a run that ends at the end of a grid."""
    rows = []
    for rate, seed in itertools.product(scale.rates, range(scale.seeds)):
        began = time.perf_counter()
        try:
            for row in part(data, scale, rate, seed):
                rows.append(row)
                shown = ", ".join(f"{name} {100 * row.accuracy[name]:.1f}" for name in NAMES)
                print(
                    f"rate {rate}, seed {seed}, {row.apart} rounds apart: {shown}; exact: {row.exact}", flush=True
                )
        except HeadroomError as error:
            print(f"rate {rate}, seed {seed} stops: {error}", flush=True)
        print(f"rate {rate}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown: a rate and length a line; accuracies (mean and standard deviation), and in brackets mean losses.

    The last column has how far the union has gone since the parting, as a multiple of the run that never parted.
    """
    lines = ["| rate | rounds apart | " + " | ".join(NAMES) + " | way of the union |"]
    lines.append("|---:|---:|" + "---:|" * (len(NAMES) + 1))
    for rate, apart in sorted({(row.rate, row.apart) for row in rows}):
        own = [row for row in rows if (row.rate, row.apart) == (rate, apart)]
        cells = []
        for name in NAMES:
            accuracies = [100 * row.accuracy[name] for row in own]
            spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
            cells.append(f"{mean(accuracies):.1f} ± {spread:.1f} ({mean(row.loss[name] for row in own):.3f})")
        longer = mean(row.moved["union"] / row.moved["never parted"] for row in own)
        lines.append(f"| {rate:g} | {apart} | " + " | ".join(cells) + f" | {longer:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what the command line asks for."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("docs/replay"))
    words.add_argument("--quick", action="store_true", help="one seed, few rounds: too few to learn much")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    scale = QUICK if chosen.quick else Scale()
    rows = measure(reviews.load(), scale)
    print(table(rows))
    write(chosen.out, rows, scale)


def write(out: Path, rows: Sequence[Row], scale: Scale) -> None:
    """Leave table and figures in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "merge.md").write_text(table(rows))
    options.write(out / "merge.json", {"scale": asdict(scale), "rows": [asdict(row) for row in rows]}, "cpu")


if __name__ == "__main__":
    main()

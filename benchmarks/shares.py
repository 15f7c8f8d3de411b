"""Where the signal is: the share of the expected gradient in one row's gradient, by kind of parameter and depth.

    python benchmarks/shares.py --model smollm2 --corpus rotten-tomatoes
    python benchmarks/shares.py --even --size 16     # what even labels do to a batch's gradient
    python benchmarks/shares.py --temperatures       # how unevenly rows count
    python benchmarks/shares.py --gains 600          # what a gradient gains, by temperature and layers
    python benchmarks/shares.py --course 0 35 70     # the share beside what is believed of it, on the way

Gradients by backpropagation, of some hundred rows in batches, where training has come to. For each group of
parameters are printed the square of the expected gradient ``S``, the mean square of one row's gradient ``N``, both
without bias, and ``S / N``. What a step along random directions in a group can gain goes by ``S**2 / N**2``.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean, stdev

import torch
from torch import Tensor

from convergence import margins
from convergence.bench import MODELS, Bench
from convergence.methods import METHODS, SharedSeed
from convergence.plans import HEAD, LANGUAGE
from convergence.spec import Spec


@dataclass(frozen=True)
class Share:
    """Of one group: how many numbers, and the two squares."""

    numbers: int
    signal: float
    row: float

    @property
    def share(self) -> float:
        """How much of one row's gradient is everybody's; 0 where there is none, as of a fresh adapter's A."""
        return self.signal / self.row if self.row else 0.0


def kind(name: str) -> str:
    """The matrix that a parameter is, whatever its layer."""
    return re.sub(r"\.\d+\.", ".*.", name.removesuffix(".weight"))


def depth(name: str) -> str:
    """Its layer, or what it is outside of them."""
    found = re.search(r"\.(\d+)\.", name)
    return f"layer {found[1]:>2}" if found else kind(name)


def gradients(
    bench: Bench, batches: int, size: int, seed: int = 0, *, even: bool = False
) -> Iterator[list[tuple[str, Tensor]]]:
    """Of each batch, by parameter; the next one's take their place."""
    drawn = bench.batches(size, seed, even=even)
    for _ in range(batches):
        bench.model.zero_grad()
        bench.loss(next(drawn)).backward()  # type: ignore[no-untyped-call]
        yield [(name, p.grad) for name, p in bench.model.named_parameters() if p.grad is not None]


def measure(bench: Bench, batches: int, size: int, seed: int = 0) -> dict[str, tuple[int, float, float]]:
    """By parameter: numbers, square of the expected gradient, mean square of a row's gradient.

    Of ``n`` batches of ``b`` rows with gradients ``g_i`` of mean ``m``: the variance of one row's is
    ``b * sum |g_i - m|**2 / (n - 1)``, and ``|m|**2`` is too large by that over ``n * b``.
    """
    sums: dict[str, Tensor] = {}
    squares: dict[str, float] = defaultdict(float)
    for gradient in gradients(bench, batches, size, seed):
        for name, part in gradient:
            sums[name] = sums[name] + part if name in sums else part.clone()
            squares[name] += float(part.square().sum())
    found = {}
    for name in sums:
        mean_square = float(sums[name].square().sum()) / batches**2
        variance = size * (squares[name] - batches * mean_square) / (batches - 1)
        signal = mean_square - variance / (batches * size)
        found[name] = (sums[name].numel(), signal, signal + variance)
    return found


def grouped(found: dict[str, tuple[int, float, float]], by: Callable[[str], str]) -> dict[str, Share]:
    """Sums over groups; ``all`` is everything."""
    groups: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for name, figures in found.items():
        groups[by(name)].append(figures)
        groups["all"].append(figures)
    return {group: _sum(figures) for group, figures in groups.items()}


def _sum(figures: Iterable[tuple[int, float, float]]) -> Share:
    numbers, signal, row = (sum(column) for column in zip(*figures, strict=True))
    return Share(int(numbers), signal, row)


TEMPERATURES = (1, 2, 4, 8, 16)


def evenness(logits: Tensor, labels: Tensor, temperature: float) -> float:
    """Square of the mean of the rows' weights over the mean of their squares: 1 if all count alike.

    A row's weight is the length of its loss's gradient with respect to its logits, for two labels in proportion to
    the chance that the wrong one is given. Were the rows' margins alike in how they depend on the parameters, the
    share of the signal would be in proportion to this.

    Args:
        logits: float32 [rows, labels].
        labels: int64 [rows].
        temperature: that logits are divided by.
    """
    away = torch.softmax(logits / temperature, 1)
    away[torch.arange(len(labels)), labels] -= 1
    weights = away.norm(dim=1).double()
    return float(weights.mean() ** 2 / weights.square().mean())


@torch.no_grad()
def outputs(bench: Bench, rows: int = 32) -> tuple[Tensor, Tensor]:
    """Logits float32 [rows, labels] of all training rows, and their labels."""
    ordered = sorted(bench.train, key=lambda feature: len(feature[0]))
    batches = [bench.batch(ordered[start : start + rows]) for start in range(0, len(ordered), rows)]
    return torch.cat([bench.logits(inputs) for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def follow(spec: Spec, stops: Sequence[int], rows: int) -> Iterator[tuple[int, Share, float]]:
    """Train, and measure the share of all that is trained where a run has come to.

    Yields:
        Steps, the share by backpropagation, row by row, at that step's temperature, and what the run believes.
    """
    bench = MODELS[spec.model](spec)
    method = SharedSeed(bench, spec)
    trained = {tensor.name for tensor in method.weights}
    for number in range(max(stops) + 1):
        if number:
            method.step(number - 1)
        if number in stops:
            found = measure(bench, rows, 1)
            bench.model.zero_grad()
            yield number, _sum(figures for name, figures in found.items() if name in trained), method.believed


def _error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values))


def _print_gains(found: margins.Margins) -> None:
    print(f"{'nats a gradient, at temperature':32}" + "".join(f"{t:>10}" for t in TEMPERATURES))
    count = int(found.layers.max()) + 1
    tenths = [range(count * i // 10, count * (i + 1) // 10) for i in range(10)]
    for layers in (range(count), *filter(len, tenths)):
        gains = [margins.gain(found, temperature, layers) for temperature in TEMPERATURES]
        print(
            f"layers {layers.start:>2} to {layers.stop - 1:>2} alone            "
            + "".join(f"{g:10.1e}" for g in gains)
        )


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--model", choices=MODELS, default="smollm2")
    words.add_argument("--corpus", default="rotten-tomatoes")
    words.add_argument("--lora", action="store_true")
    words.add_argument("--batches", type=int, default=64)
    words.add_argument("--size", type=int, default=8, help="rows a batch")
    words.add_argument(
        "--even", action="store_true", help="print the mean square of a batch's gradient, with labels even and not"
    )
    words.add_argument("--temperatures", action="store_true", help="print how evenly rows count at each")
    words.add_argument("--gains", type=int, default=0, metavar="ROWS", help="print what a gradient gains at best")
    words.add_argument("--passes", type=int, default=0, help="forward passes of training before")
    words.add_argument(
        "--course",
        type=int,
        nargs="+",
        metavar="STEPS",
        help="print the share after so many steps",
    )
    words.add_argument("--rows", type=int, default=480, help="for --course")
    words.add_argument("--seed", type=int, default=0, help="for --course")
    chosen = words.parse_args()
    torch.set_num_threads(1)
    if chosen.course:
        base = {"smollm2": LANGUAGE, "minilm": HEAD}[chosen.model]
        course = replace(base, corpus=chosen.corpus, passes=1400, precision="bf16", seed=chosen.seed)
        for number, share, believed in follow(course, chosen.course, chosen.rows):
            print(f"after {number:3} steps: share {share.share:.4f}, believed {believed:.4f}", flush=True)
        return
    spec = Spec(model=chosen.model, corpus=chosen.corpus, lora=chosen.lora, passes=chosen.passes, most_tokens=32)
    bench = MODELS[spec.model](spec)
    method = METHODS["ours"](bench, spec)
    for number in range(spec.steps):
        method.step(number)
    if chosen.temperatures:
        logits, labels = outputs(bench)
        for temperature in TEMPERATURES:
            print(f"temperature {temperature:2} {evenness(logits, labels, temperature):6.3f}")
        return
    if chosen.gains:
        if bench.words is None or len(bench.words) != 2:
            words.error("gains are of a language model that is asked for one of two words")
        _print_gains(margins.measure(bench, chosen.gains))
        return
    if chosen.even:
        for even in (False, True):
            drawn = gradients(bench, chosen.batches, chosen.size, even=even)
            squares = [sum(float(part.square().sum()) for _, part in gradient) for gradient in drawn]
            print(f"{'even in labels' if even else 'at random':14} {fmean(squares):8.4g} ± {_error(squares):.2g}")
        return
    found = measure(bench, chosen.batches, chosen.size)
    for by in (kind, depth):
        print(f"{'group':58} {'numbers':>12} {'S':>10} {'N':>10} {'S / N':>8}")
        for group, share in grouped(found, by).items():
            print(f"{group:58} {share.numbers:12,} {share.signal:10.4g} {share.row:10.4g} {share.share:8.4f}")


if __name__ == "__main__":
    main()

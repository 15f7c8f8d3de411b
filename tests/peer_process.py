"""One peer in a process of its own: a small model, a real session. Run by the multi-process tests.

Prints a line of JSON per step and one at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import nn

from shared_seed.errors import SharedSeedError
from shared_seed.session import Session
from shared_seed.training import Training
from told import as_told


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(20, 32),
        nn.ReLU(),
        nn.BatchNorm1d(32),
        nn.Dropout(0.1),
        nn.Linear(32, 16),
        nn.Tanh(),
        nn.Linear(16, 2),
    )


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(600, 20, generator=generator)
    return inputs, (inputs[:, 0] + inputs[:, 1] > 0).long()


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def train(options: argparse.Namespace) -> None:
    model = small_model(options.model_seed)
    inputs, labels = data()
    settings = as_told(
        epsilon=2.0**-10,
        lockstep=not options.free,
        aggregation=options.aggregation,
        start_with=options.start_with,
        listen=options.listen,
        join=tuple(options.join),
        via=tuple(options.via),
        folder=options.folder,
        name=f"p{options.number}",
        number=options.number,
        deadline=options.deadline,
        patience=60,
    )
    session = Session.open(model, settings, Training(rounds=options.rounds, title="small"))
    try:
        session.begin()
        say(event="began", round=session.round, address=session.swarm.address if session.swarm else None)
        order = torch.Generator().manual_seed(options.number)
        while not session.is_over():
            rows = torch.randint(0, 600, (16,), generator=order)
            broken = options.broken[session.round // 3 % len(options.broken)] if session.round % 3 == 2 else 1.0
            session.measure(
                lambda rows=rows, broken=broken: (
                    nn.functional.cross_entropy(model(inputs[rows]), labels[rows]) * broken
                )
            )
            step = session.step(2e-3)
            say(event="step", round=step.round, loss=step.loss, peers=step.peers, late=step.late)
            time.sleep(options.pause)
        outcome = session.finish()
        say(event="finished", digest=outcome.digest, others=outcome.others, gradients=outcome.gradients)
    finally:
        session.close()


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--listen")
    parser.add_argument("--join", nargs="*", default=[])
    parser.add_argument("--via", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--start-with", type=int, default=1)
    parser.add_argument("--deadline", type=float)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--aggregation", default="sum")
    parser.add_argument("--model-seed", type=int, default=0)
    parser.add_argument("--broken", nargs="*", type=float, default=[1.0], help="factors of every third loss")
    try:
        train(parser.parse_args())
    except SharedSeedError as error:
        say(event="error", kind=type(error).__name__, text=str(error))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()

"""A real Trainer on a small model, as one rank of a torchrun or as a peer by itself. Run by the multi-process
tests, for which it leaves a file of JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed

import models
from shared_seed.errors import SharedSeedError
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.settings import Settings
from told import as_told
from trainers import Recorder, rows, trainer_of, uneven_rows


def say(folder: Path, **event: Any) -> None:
    # The ranks share a pipe, so what they print may be mixed.
    (folder / f"rank-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(event))


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    recorder = Recorder()
    told = as_told(epsilon=2.0**-12)
    # Far enough for the promise to be what decides, and not how far a probe looks.
    found = Settings(epsilon=2.0**-4, directions=1)
    settings = dataclasses.replace(
        found if options.found else told,
        patience=60,
        listen=options.listen,
        join=tuple(options.join),
        start_with=options.start_with,
        number=options.number,
        name=f"peer-{options.number}" if options.number is not None else "peer",
        folder=options.keep,
    )
    callback = SharedSeedCallback(settings, on_step=recorder)
    model = models.llama() if options.uneven else models.opt()
    if options.weights is not None:
        # Both begin from what bfloat16 holds.
        model = model.bfloat16().to(getattr(torch, options.weights))
    trainer = trainer_of(
        options.folder,
        model,
        callback,
        uneven_rows() if options.uneven else rows(),
        max_steps=options.steps,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        save_strategy="steps",
        save_steps=options.save,
        learning_rate=options.rate,
        data_seed=options.number,
        logging_strategy="steps",
        logging_steps=1,
    )
    trainer.train(resume_from_checkpoint=options.resume)
    outcome = callback.outcome
    assert outcome is not None
    say(
        options.folder,
        digest=outcome.digest,
        others=outcome.others,
        streams=outcome.streams,
        messages=outcome.messages,
        peers=[step.peers for step in recorder.steps],
        rates=[step.learning_rate for step in recorder.steps],
        late=[name for step in recorder.steps for name in step.late],
        losses=recorder.losses,
        gradients=[step.gradient for step in recorder.steps],
        state=len(trainer.optimizer.state),
        logged=[entry for entry in trainer.state.log_history if "loss" in entry],
    )


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--listen")
    parser.add_argument("--join", nargs="*", default=[])
    parser.add_argument("--start-with", type=int, default=1)
    parser.add_argument("--number", type=int)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--save", type=int, default=100)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--found", action="store_true")
    parser.add_argument("--resume")
    parser.add_argument("--uneven", action="store_true")
    parser.add_argument("--weights", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    code = 0
    try:
        train(options)
    except SharedSeedError as error:
        say(options.folder, error=type(error).__name__, text=str(error))
        code = 1
    if distributed.is_initialized():
        distributed.destroy_process_group()
        # On a busy machine, threads of torch now and then abort the interpreter's own end, when all is done and
        # written ("terminate called without an active exception").
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)


if __name__ == "__main__":
    main()

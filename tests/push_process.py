"""A real Trainer that pushes what it has trained; run by the tests of the Hub. Prints the digest."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import models
from shared_seed.integrations.transformers import SharedSeedCallback
from shared_seed.settings import Settings
from trainers import trainer_of


def main(folder: Path, repo: str, strategy: str) -> None:
    torch.manual_seed(0)
    callback = SharedSeedCallback(Settings(number=0))
    trainer = trainer_of(
        folder,
        models.llama(),
        callback,
        push_to_hub=True,
        hub_model_id=repo,
        hub_strategy=strategy,
        hub_always_push=True,
        save_strategy="steps",
        save_steps=2,
    )
    trainer.train()
    trainer.push_to_hub()
    assert callback.outcome is not None
    print(callback.outcome.digest)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

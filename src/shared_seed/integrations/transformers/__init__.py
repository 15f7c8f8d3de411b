"""The Hugging Face Trainer; this package is the only importer of transformers and peft."""

from shared_seed.integrations.transformers.callback import SharedSeedCallback

__all__ = ["SharedSeedCallback"]

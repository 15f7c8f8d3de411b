"""Base models: from the Hub, a local folder, or a GGUF file in a Python package; with LoRA if asked for."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from shared_seed import packages
from shared_seed.errors import ModelError
from shared_seed.recipe import Lora


def quiet() -> None:
    """Turn transformers' own progress bars off, for programs that show their own."""
    transformers.utils.logging.disable_progress_bar()


def cache_folder() -> Path:
    """Where converted models are kept: ``$SHARED_SEED_CACHE``, or ``shared-seed`` in the user's cache."""
    chosen = os.environ.get("SHARED_SEED_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "shared-seed"


def local_copy(reference: str) -> str:
    """What ``from_pretrained`` takes for a reference; a GGUF file in a package is converted once and kept.

    Raises:
        DataError: the package or the file in it does not exist.
        ModelError: the file cannot be converted.
    """
    if not reference.startswith(packages.PREFIX):
        return str(Path(reference).expanduser()) if reference.startswith("~") else reference
    source = packages.find(reference, ".gguf")
    stamp = f"{source.name} {source.stat().st_size} transformers {transformers.__version__}"
    target = cache_folder() / f"{source.stem}-{hashlib.sha256(stamp.encode()).hexdigest()[:12]}"
    if not target.exists():
        _convert(source, target)
    return str(target)


def _convert(source: Path, target: Path) -> None:
    """Write a GGUF file as a folder that ``from_pretrained`` reads; there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        where = {"gguf_file": source.name}
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent,
            quantization_config=transformers.GgufConfig(dequantize=True),
            dtype=torch.float32,
            **where,
        )
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(source.parent, **where).save_pretrained(folder)
        folder.chmod(0o755)
        if not target.exists():
            folder.rename(target)
    except OSError as error:
        if not target.exists():
            raise ModelError(f"cannot convert {source}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What recipes call them."""


def load(reference: str, lora: Lora | None = None, seed: int = 0, weights: str = "fp32") -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Args:
        reference: Hub name, local folder or ``package:NAME``.
        lora: adapter to train instead; its first values depend on ``seed`` alone.
        seed: for the adapter.
        weights: fp32 or bf16; an adapter is in float32 either way.

    Raises:
        ModelError: the model cannot be loaded, or has no layer that the adapter names.
        DataError: a package reference leads nowhere.
    """
    where = local_copy(reference)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where)
        model = transformers.AutoModelForCausalLM.from_pretrained(where, dtype=DTYPES[weights])
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"cannot load model {reference!r}; expected a Hub name or a folder: {reason}") from error
    if lora is not None:
        model = with_lora(model, lora, seed)
    return model, tokenizer


def with_lora(model: Any, lora: Lora, seed: int) -> Any:
    """Wrap a model in a LoRA adapter whose first values are the same on every machine."""
    import peft

    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0
    )
    try:
        wrapped = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"cannot put a LoRA adapter on {', '.join(lora.targets)}: {error}") from error
    initialise_adapter(wrapped, seed)
    return wrapped


def initialise_adapter(model: nn.Module, seed: int) -> None:
    """Give LoRA's A matrices uniform values of variance ``1 / (3 * inputs)``, as PEFT does, from raw Philox
    integers, since torch's own generators differ between devices.
    """
    generator = np.random.Philox(key=seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" in name:
            raw = generator.random_raw(parameter.numel()) >> np.uint64(40)
            unit = raw.astype(np.float64) / 2.0**23 - 1.0
            values = (unit / np.sqrt(parameter.shape[1])).astype(np.float32)
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(values).view(parameter.shape))

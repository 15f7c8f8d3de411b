"""Base models: from the Hub, a local folder, or a GGUF file in a Python package; with LoRA if asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from shared_seed import packages
from shared_seed.errors import ModelError
from shared_seed.recipe import Lora, Recipe


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


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "4bit": torch.bfloat16}
"""What recipes call them; with 4bit, the dtype of what is not a matrix, and of products."""


def load(
    reference: str, lora: Lora | None = None, seed: int = 0, weights: str = "fp32", offline: bool = False
) -> tuple[Any, Any]:
    """A causal language model and its tokenizer.

    Args:
        reference: Hub name, local folder or ``package:NAME``.
        lora: adapter to train instead; its first values depend on ``seed`` alone.
        seed: for the adapter.
        weights: fp32, bf16 or 4bit; an adapter is in float32 in any case.
        offline: take what is on this machine, and download nothing.

    Raises:
        ModelError: the model cannot be loaded, or has no layer that the adapter names, or what quantises it is not
            installed.
        DataError: a package reference leads nowhere.
    """
    where = local_copy(reference)
    options = {**_dtype(weights), "local_files_only": offline}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, local_files_only=offline)
        model = transformers.AutoModelForCausalLM.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"cannot load model {reference!r}; expected a Hub name or a folder: {reason}") from error
    if weights == "4bit":
        _keep_layout(model)
    if lora is not None:
        model = with_lora(model, lora, seed)
    return model, tokenizer


def load_for(recipe: Recipe, offline: bool = False) -> tuple[Any, Any]:
    """As :func:`load`, with what the recipe does not train held."""
    model, tokenizer = load(recipe.model, recipe.lora, recipe.training.seed, recipe.weights, offline)
    return hold(model, recipe), tokenizer


def hold(model: Any, recipe: Recipe) -> Any:
    """Keep what a recipe does not train from being trained; returns the model.

    Embeddings, and the matrix that gives logits, have a third of one row's gradient, and a tenth of what the rows
    have in common: random directions lose more by their noise than they gain (docs/convergence.md).
    """
    if recipe.lora is None and not recipe.training.embeddings:
        output = model.get_output_embeddings()
        for module in model.modules():
            if isinstance(module, nn.Embedding) or module is output:
                module.requires_grad_(False)
    return model


def _dtype(weights: str) -> dict[str, Any]:
    """What ``from_pretrained`` is told of weights."""
    options: dict[str, Any] = {"dtype": DTYPES[weights]}
    if weights == "4bit":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(
                "weights: 4bit needs the package bitsandbytes, and it is not installed; "
                "pip install 'shared-seed[4bit]', or set weights: bf16"
            )
        # No double quantisation: its mean depends on the order of a sum, and so on the device.
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=DTYPES[weights]
        )
        options["device_map"] = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    return options


def _keep_layout(model: nn.Module) -> None:
    """Keep quantised weights as they are on every device.

    With AVX-512, bitsandbytes 0.50 packs them anew for a CPU at the first evaluation, and scales do not come back
    from that as they were: their digest would depend on the machine and on what was done before.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def config(reference: str) -> Any:
    """A model's configuration, if it is on this machine.

    Raises:
        ModelError: it is not.
        DataError: a package reference leads nowhere.
    """
    try:
        return transformers.AutoConfig.from_pretrained(local_copy(reference), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"model {reference!r} is not on this machine: {str(error).splitlines()[0]}") from error


def skeleton(config: Any, lora: Lora | None = None) -> Any:
    """A model without values, on the meta device, with an adapter if asked for.

    Args:
        config: a transformers configuration, or a mapping with ``model_type`` and what else makes one.
        lora: as in :func:`load`.

    Raises:
        ModelError: no layer has a name that the adapter asks for.
    """
    if isinstance(config, Mapping):
        config = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
        return model if lora is None else _wrapped(model, lora)


def with_lora(model: Any, lora: Lora, seed: int) -> Any:
    """Wrap a model in a LoRA adapter whose first values are the same on every machine."""
    wrapped = _wrapped(model, lora)
    initialise_adapter(wrapped, seed)
    return wrapped


def _wrapped(model: Any, lora: Lora) -> Any:
    import peft

    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"cannot put a LoRA adapter on {', '.join(lora.targets)}: {error}") from error


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

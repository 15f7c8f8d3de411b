"""What the forward passes of a recipe compute in, where it leaves that to the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from shared_seed.recipe import Recipe

PRODUCTS = ("avx512_bf16", "amx_bf16")
"""Instructions of x86 that multiply bf16, as torch and the Linux kernel name them.

Without them torch's products of bf16 take several times as long as those of fp32 (docs/experiments.md).
"""


@dataclass(frozen=True)
class Precision:
    """What a peer computes in, and why, in a few words for people."""

    name: Literal["bf16", "fp32"]
    reason: str

    @property
    def bf16(self) -> bool:
        """Whether forward passes go under bf16 autocast."""
        return self.name == "bf16"

    def __str__(self) -> str:
        return f"{self.name}, {self.reason}"


def resolve(recipe: Recipe, device: str | None = None) -> Precision:
    """What a peer of a recipe computes in on this machine: always the same, since no timing is asked.

    Peers need not agree. A byte says which way a probe's two losses differ, and all of them move their weights by
    the bytes, in fp32 (docs/format.md).

    Args:
        recipe: whose ``training.precision`` is asked for.
        device: type of the device that computes; by default the one that recipes train on.
    """
    asked = recipe.training.precision
    if asked != "auto":
        return Precision(asked, "as the recipe says")
    if recipe.weights != "fp32":
        return Precision("bf16", f"which weights in {recipe.weights} need")
    if (device or ("cuda" if torch.cuda.is_available() else "cpu")) == "cuda":
        # Without emulation: a GPU before Ampere takes bf16 tensors and has no units for them.
        made = torch.cuda.is_bf16_supported(including_emulation=False)
        return _chosen(made, "GPU")
    # Products of bf16 are oneDNN's, without which a CPU's instructions would lie idle.
    has_kernels = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return _chosen(has_kernels and multiplies(capabilities()), "CPU")


def _chosen(made: bool, what: str) -> Precision:
    if made:
        return Precision("bf16", f"which this {what} is made for")
    return Precision("fp32", f"since this {what} has no instructions for bf16 products")


def multiplies(found: Mapping[str, object]) -> bool:
    """Whether a CPU of these capabilities has instructions for products of bf16."""
    return any(found.get(name) is True for name in PRODUCTS)


def capabilities() -> Mapping[str, object]:
    """Names of this CPU's capabilities and whether it has them, as far as torch or the kernel tells.

    Of what there is to ask, ``torch.backends.cpu.get_cpu_capability`` knows AVX-512 and not its bf16;
    ``torch.ops.mkldnn._is_mkldnn_bf16_supported`` says yes to any AVX-512, where bf16 is emulated; numpy's
    ``__cpu_features__`` is private and without AMX; py-cpuinfo starts processes.
    """
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch 2.11 and later
    if ask is not None:
        found: Mapping[str, object] = ask()
        return found
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # another system than Linux
        return {}
    return flags(text)


def flags(text: str) -> dict[str, object]:
    """The flags of the first processor in the text of Linux's ``/proc/cpuinfo``."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return dict.fromkeys(value.split(), True)
    return {}

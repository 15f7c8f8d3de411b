"""What `precision: auto` comes to, by the hardware and the recipe."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from shared_seed import card, log, metrics, precision, recipe, replay
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers.models import load
from shared_seed.precision import capabilities, flags, multiplies, resolve
from shared_seed.recipe import Recipe
from shared_seed.summary import Summary

HAS_UNITS = torch.backends.mkldnn.is_available() and multiplies(capabilities())

ZEN_4 = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"


def terms(**changes: Any) -> Recipe:
    content = {
        "model": "x",
        "dataset": "y",
        "task": {"prompt": "{text}", "words": {"0": "terrible", "1": "great"}},
        "training": {"steps": 1, "learning_rate": 0.1} | changes.pop("training", {}),
    }
    return recipe.parse(content | changes, "here")


def test_auto_is_the_default_and_goes_by_the_processor() -> None:
    found = resolve(terms(), "cpu")
    assert terms().training.precision == "auto"
    assert found.bf16 is HAS_UNITS
    assert str(found) in (
        "bf16, which this CPU is made for",
        "fp32, since this CPU has no instructions for bf16 products",
    )
    assert resolve(terms(), "cpu") == found


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
@pytest.mark.parametrize("device", [None, "cpu", "cuda"])
def test_what_a_recipe_says_is_done_on_any_hardware(asked: str, device: str | None) -> None:
    found = resolve(terms(training={"precision": asked}), device)
    assert (found.name, found.reason) == (asked, "as the recipe says")


@pytest.mark.parametrize("weights", ["bf16", "4bit"])
def test_weights_that_are_not_fp32_compute_in_bf16(weights: str) -> None:
    found = resolve(terms(weights=weights, lora={}), "cpu")
    assert (found.bf16, found.reason) == (True, f"which weights in {weights} need")


def test_a_gpu_is_asked_for_its_own_units() -> None:
    made = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    assert resolve(terms(), "cuda").bf16 is made
    assert resolve(terms()) == resolve(terms(), "cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("found", "multiplied"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True, "amx_tile": True}, True),
        ({"avx512_f": True, "avx512_vl": True, "avx512_bf16": False}, False),
        ({"architecture": "arm64", "bf16": True}, False),
        ({}, False),
    ],
)
def test_only_instructions_for_products_count(found: dict[str, object], multiplied: bool) -> None:
    assert multiplies(found) is multiplied


def test_the_kernel_names_them_as_torch_does() -> None:
    assert multiplies(flags(ZEN_4))
    assert not multiplies(flags(ZEN_4.replace("avx512_bf16", "avx512_vnni")))
    assert flags("Processor: an ARM\nFeatures: bf16\n") == {}
    if sys.platform == "linux" and platform.machine() == "x86_64":
        named, found = flags(Path("/proc/cpuinfo").read_text()), capabilities()
        assert [n in named for n in precision.PRODUCTS] == [found.get(n, False) for n in precision.PRODUCTS]


@pytest.mark.parametrize("trainer", ["transformers", "lightning"])
def test_a_run_says_what_it_has_computed_in(tmp_path: Path, trainer: str) -> None:
    chosen = resolve(terms(), None).name
    folder = tiny.run(tiny.recipe(tmp_path, trainer=trainer, precision="auto", steps=3))
    contents = log.read(folder / LOG_NAME)
    assert contents.manifest.recipe is not None
    assert contents.manifest.recipe["training"]["precision"] == "auto", "who joins chooses anew"
    summary = Summary.load(folder)
    assert summary.precision == chosen
    said = f"| forward passes computed in | {chosen}, chosen by this peer for its hardware |"
    assert said in (folder / card.NAME).read_text()
    model, _ = load(str(tmp_path / "model"))
    assert replay.rebuild(model, contents).digest().hex() == summary.digest

    earlier = json.loads((folder / "result.json").read_text())
    del earlier["precision"]
    (folder / "result.json").write_text(json.dumps(earlier))
    assert Summary.load(folder).precision is None
    card.write(folder)
    assert "| bf16 or fp32, chosen by each peer for its hardware |" in (folder / card.NAME).read_text()


def test_auto_gives_the_bits_of_what_it_chooses(tmp_path: Path) -> None:
    found = []
    for asked in ("auto", resolve(terms(), None).name):
        folder = tmp_path / asked
        folder.mkdir()
        run = tiny.run(tiny.recipe(folder, precision=asked, steps=3))
        found.append([line["loss"] for line in metrics.read(run)])
    assert found[0] == found[1]

"""The reference of a recipe's keys is what the schema says."""

from __future__ import annotations

from pathlib import Path

from shared_seed import reference
from shared_seed.facts import Facts
from shared_seed.recipe import Lora, Recipe, SwarmSection, Training

PAGE = Path(__file__).parent.parent / "docs" / "recipe-keys.md"


def test_the_page_has_the_keys_that_there_are() -> None:
    assert PAGE.read_text() == reference.markdown(), f"shared-seed recipes --keys > {PAGE}"


def test_every_key_is_there_with_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference.markdown().splitlines() if line.startswith("| `")]
    keys = {row[0].strip("|` ") for row in rows}
    for section in (Recipe, Lora, Training, SwarmSection, Facts):
        assert set(section.model_fields) <= keys
    assert all(row[3].strip(" |") for row in rows)


def test_limits_choices_and_defaults_are_told() -> None:
    lines = reference.markdown().splitlines()
    assert '| `title` | text | `""` | one line for people |' in lines
    assert any(line.startswith("| `trim` | number ≥ 0 < 0.5 | `0.25` |") for line in lines)
    assert any(line.startswith('| `precision` | `auto`, `bf16`, `fp32` | `"auto"` |') for line in lines)
    assert any(line.startswith("| `steps` | integer > 0 | required |") for line in lines)

"""In which order rows come, and that every loop has them so."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from shared_seed import data, log, recipe
from shared_seed.classification import Classification
from shared_seed.folder import LOG_NAME
from shared_seed.integrations.transformers.models import load
from shared_seed.job import Job, fit
from shared_seed.run import settings_for
from shared_seed.sampler import ByLength
from shared_seed.swarm.zmq import free_ports
from shared_seed.text_task import Batch, Feature

SIZE = 8
SCRIPT = Path(__file__).with_name("order_process.py")


def lengths(rows: int = 1003, seed: int = 0) -> list[int]:
    draw = random.Random(seed)
    return [min(64, 5 + int(draw.expovariate(1 / 20))) for _ in range(rows)]


def longest(order: Sequence[int], of: Sequence[int]) -> list[int]:
    """The longest row of each whole batch."""
    whole = len(order) // SIZE * SIZE
    return [max(of[row] for row in order[start : start + SIZE]) for start in range(0, whole, SIZE)]


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 31, 32, 33, 400, 1003])
def test_each_epoch_has_every_row_once(rows: int) -> None:
    sampler = ByLength(lengths(rows), SIZE, 3, 4)
    assert len(sampler) == rows
    for _ in range(2):
        assert sorted(sampler) == list(range(rows))


def test_epochs_differ_and_the_same_seeds_give_the_same_ones() -> None:
    one, same, other = (ByLength(lengths(), SIZE, seed, 0) for seed in (1, 1, 2))
    epochs = [list(one) for _ in range(3)]
    assert [list(same) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in [*epochs, list(other)]}) == 4


def test_little_is_padded_and_long_batches_come_at_any_time() -> None:
    found = lengths()
    order, at_random = list(ByLength(found, SIZE, 1, 0)), random.Random(0).sample(range(len(found)), len(found))
    own = sum(found)
    assert SIZE * sum(longest(order, found)) < 1.1 * own
    assert SIZE * sum(longest(at_random, found)) > 1.6 * own
    maxima = longest(order, found)
    quarters = [maxima[start : start + len(maxima) // 4] for start in range(0, len(maxima) - 4, len(maxima) // 4)]
    means = [sum(quarter) / len(quarter) for quarter in quarters]
    assert max(means) < 1.5 * min(means)
    rises = sum(after > before for before, after in itertools.pairwise(maxima))
    assert 0.3 < rises / len(maxima) < 0.7


def test_batches_have_their_share_of_each_label() -> None:
    found, draw = lengths(), random.Random(2)
    labels = [draw.choice((0, 0, 0, 1, 1, 2)) for _ in found]
    order = list(ByLength(found, SIZE, 1, 0, labels))
    assert sorted(order) == list(range(len(found)))
    whole = [order[start : start + SIZE] for start in range(0, len(order) - SIZE + 1, SIZE)]
    shares = {label: SIZE * labels.count(label) / len(labels) for label in (0, 1, 2)}
    off = [abs(sum(labels[row] == label for row in batch) - shares[label]) for batch in whole for label in shares]
    assert max(off) < 2
    assert SIZE * sum(longest(order, found)) < 1.2 * sum(found), "much is padded"
    one_label = list(ByLength(found, SIZE, 1, 0, [3] * len(found)))
    assert one_label == list(ByLength(found, SIZE, 1, 0))


def test_peers_have_long_batches_at_the_same_time() -> None:
    ours, theirs = lengths(seed=1), lengths(seed=2)
    together = (longest(list(ByLength(x, SIZE, n, 0)), x) for n, x in enumerate((ours, theirs)))
    apart = (longest(list(ByLength(x, SIZE, n, n)), x) for n, x in enumerate((ours, theirs)))
    waited = [sum(map(max, zip(*maxima, strict=True))) for maxima in (together, apart)]
    assert waited[0] < 0.85 * waited[1]


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(ByLength(lengths(), SIZE, 1, 0))
    assert torch.equal(torch.get_rng_state(), before)


class Recorded(Classification):
    """Keeps what each batch was made of."""

    def collate(self, features: Sequence[Feature]) -> Batch:
        """As the task's own."""
        self.seen = [*getattr(self, "seen", []), tuple(tuple(feature["input_ids"]) for feature in features)]
        return super().collate(features)


def batches(folder: Path, trainer: str, number: int | None) -> list[Any]:
    """The batches that a loop takes in a run of two epochs, as it takes them."""
    folder.mkdir()
    terms = recipe.load(tiny.recipe(folder, trainer=trainer, steps=20, epsilon=2.0**-8))
    model, tokenizer = load(terms.model)
    task = Recorded(terms.task, tokenizer, model)  # type: ignore[arg-type]
    features = task.encode(data.parts(terms.dataset, terms.task, 0).train)
    settings = settings_for(terms, folder / "run", number=number)
    fit(Job(terms, settings, model, task, features, lambda session, step: None))
    return task.seen[:20]  # type: ignore[no-any-return]


def test_both_loops_take_the_same_batches_and_each_peer_its_own(tmp_path: Path) -> None:
    transformers, lightning = (batches(tmp_path / name, name, 0) for name in ("transformers", "lightning"))
    assert transformers == lightning
    assert len(set(transformers)) == 20
    for trainer, number in itertools.product(("transformers", "lightning"), (1, None)):
        other = batches(tmp_path / f"{trainer} {number}", trainer, number)
        assert not set(other) & set(transformers), "by a number of its own, or at random without one"


def test_the_batches_of_all_epochs_are_those_of_each() -> None:
    of, again = (ByLength(lengths(20), SIZE, 1, 0) for _ in range(2))
    found = list(itertools.islice(of.batches(), 7))
    assert [len(batch) for batch in found] == [8, 8, 4, 8, 8, 4, 8]
    assert [*itertools.chain(*found[:3])] == list(again)
    assert [*itertools.chain(*found[3:6])] == list(again)
    assert list(ByLength([], SIZE, 1, 0).batches()) == []


STEPS, PROBES, EPOCH = 14, 3, 10
"""Of the runs below; ten batches are an epoch, so that steps do not end where epochs do."""

DEATHS = {"straight": (), "transformers": (5,), "lightning": (5,), "without a number": (4, 5)}
"""After how many rounds the processes of a way are killed."""


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the runs of real processes are that were killed and given again."""
    folder = tmp_path_factory.mktemp("ways")
    asked = []
    for name, deaths in DEATHS.items():
        (folder / name).mkdir()
        trainer = "lightning" if name == "lightning" else "transformers"
        terms = {"trainer": trainer, "steps": STEPS, "probes_per_step": PROBES, "epsilon": 2.0**-8}
        way = {"recipe": str(tiny.recipe(folder / name, **terms)), "folder": str(folder / name / "run")}
        # Alone and without a number a peer is another one each time.
        own = {"number": 0, "listen": None}
        if name == "without a number":
            own = {"number": None, "listen": f"tcp://127.0.0.1:{free_ports()}"}
        asked.append(way | own | {"deaths": deaths})
    words = [sys.executable, str(SCRIPT), json.dumps(asked)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    for name, line in zip(DEATHS, done.stdout.splitlines(), strict=True):
        (folder / name / "told.json").write_text(line)
    return {name: folder / name for name in DEATHS}


def taken(folder: Path, deaths: Sequence[int]) -> list[list[Any]]:
    """The batches of each process, without those that it fetched and left."""
    told = json.loads((folder / "told.json").read_text())
    assert [each["code"] for each in told] == [*(-9 for _ in deaths), 0]
    rounds = [*deaths, STEPS - sum(deaths)]
    found = [each["batches"][: count * PROBES] for each, count in zip(told, rounds, strict=True)]
    assert [len(each) for each in found] == [count * PROBES for count in rounds]
    contents = log.read(folder / "run" / LOG_NAME)
    assert [(m.round, len(m.codes)) for m in contents.messages] == [(n, PROBES) for n in range(STEPS)]
    return found


@pytest.mark.parametrize("trainer", ["transformers", "lightning"])
def test_a_peer_that_was_killed_goes_on_with_the_batches_that_it_would_have_taken(
    ways: dict[str, Path], trainer: str
) -> None:
    (straight,) = taken(ways["straight"], ())
    before, after = taken(ways[trainer], DEATHS[trainer])
    assert before == straight[: 5 * PROBES]
    assert after == straight[5 * PROBES :]


def test_a_peer_without_a_number_that_was_killed_twice_takes_each_row_once_an_epoch(ways: dict[str, Path]) -> None:
    name = "without a number"
    batches = list(itertools.chain(*taken(ways[name], DEATHS[name])))
    epochs = [batches[start : start + EPOCH] for start in range(0, 4 * EPOCH, EPOCH)]
    rows = [sorted(itertools.chain(*epoch)) for epoch in epochs]
    assert rows == [rows[0]] * 4
    assert len({json.dumps(epoch) for epoch in epochs}) == 4

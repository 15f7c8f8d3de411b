"""The lab of convergence, and what explains it, run tiny: what they print is measured, and they cannot rot."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny

pytestmark = pytest.mark.usefixtures("benchmarks")


def test_curvature(tmp_path: Path) -> None:
    import curvature

    found = curvature.measure(tiny.recipe(tmp_path), 3, 4, (-11, -12))
    assert set(found) == {-11, -12}
    assert all(figures.row[0] > 0 for figures in found.values())
    # To first order a probe's losses tell the same at either distance.
    assert found[-11].row[0] == pytest.approx(found[-12].row[0], rel=0.2)


def test_converge(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import converge
    from convergence import plans
    from convergence.course import Ledger

    head = dataclasses.replace(plans.HEAD, corpus="sms", passes=24, test_rows=20, directions=1)
    ours = [
        dataclasses.replace(head, **changes)
        for changes in (
            {"peers": 3, "behind": 1, "directions": 3},
            {"coefficient": "sign"},
            {"coefficient": "float", "dense": True, "temperature": 4},
        )
    ]
    others = [dataclasses.replace(head, method=name, rate=1e-4) for name in ("mezo", "adamw")]
    specs = [*ours, *others, dataclasses.replace(head, lora=True)]
    monkeypatch.setitem(plans.PLANS, "tiny", specs)
    monkeypatch.setattr(sys, "argv", ["converge", "tiny", "--out", str(tmp_path)])
    converge.main()
    told = capsys.readouterr().out
    assert told.count("| minilm, sms, ") == len(specs)
    assert (tmp_path / "tiny.png").stat().st_size > 0
    results = Ledger(tmp_path / "runs.jsonl").of(specs)
    assert [result["points"][-1]["passes"] for result in results] == [24] * 6
    assert all(len({point["loss"] for point in result["points"]}) > 1 for result in results)
    converge.main()
    assert "passes=" not in capsys.readouterr().out, "what has been run is run again"


@pytest.mark.parametrize(("name", "labels"), [("rotten-tomatoes", 2), ("sms", 2), ("news", 4)])
def test_a_corpus_of_the_lab_has_short_texts_of_each_label(name: str, labels: int) -> None:
    from convergence.corpora import CORPORA

    corpus = CORPORA[name]()
    assert len(corpus.labels) == labels
    for part in (corpus.train, corpus.test):
        assert len(part) >= 200
        assert {label for _, label in part} == set(range(labels))
        # Longer ones are left out by `most_tokens`.
        assert sum(len(text.split()) <= 20 for text, _ in part) > 0.4 * len(part)
    assert not {text for text, _ in corpus.train} & {text for text, _ in corpus.test}


def test_a_gradients_gain_is_that_of_random_directions_and_batches() -> None:
    from convergence import margins

    generator = np.random.default_rng(0)
    rows, numbers, temperature = 40, 6, 2.0
    signs = np.where(np.arange(rows) % 2, 1.0, -1.0)
    gradients = (generator.normal(size=(rows, numbers)) + 0.4 * signs[:, None]).astype(np.float32)
    found = margins.Margins(gradients, generator.normal(size=rows) + signs, signs, np.arange(numbers) // 3)

    def loss(moved: Tensor) -> Tensor:
        margin = torch.from_numpy(found.margins) + torch.from_numpy(gradients).double() @ moved
        first, second = margin[signs < 0], margin[signs > 0]
        return torch.nn.functional.softplus(first[None, :] - second[:, None]).mean()

    down = -torch.func.grad(loss)(torch.zeros(numbers, dtype=torch.float64)).numpy()
    weights = signs / (1 + np.exp(signs * found.margins / temperature))
    batches = np.array(
        [
            (weights[:, None] * gradients)[
                [*generator.choice(rows // 2, 8, False) * 2, *generator.choice(rows // 2, 8, False) * 2 + 1]
            ].mean(0)
            for _ in range(20_000)
        ]
    )
    chance = 1 / (1 + np.exp(-found.margins))
    curvature = ((gradients**2).sum(1) * chance * (1 - chance)).mean()
    for layers, kept in ((None, slice(None)), (range(1), slice(3)), (range(1, 2), slice(3, 6))):
        part = margins.Margins(gradients[:, kept], found.margins, signs, found.layers[kept])
        assert margins.gain(found, temperature, layers) == pytest.approx(margins.gain(part, temperature))
    along = (weights[:, None] * gradients).mean(0) @ down
    square = (batches**2).sum(1).mean()
    # A row's own product is left out: a batch's rows are not those whose loss is to fall.
    assert margins.gain(found, temperature) < along**2 / (2 * square * curvature)
    own = float(np.mean(weights * margins.ranking(found.margins, signs) * (gradients**2).sum(1)))
    assert margins.gain(found, temperature) == pytest.approx(
        (along - own) ** 2 / (2 * square * curvature), rel=0.05
    )


def test_shares(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import shares
    from convergence.bench import MODELS
    from convergence.spec import Spec

    short = ["--model", "minilm", "--corpus", "sms", "--batches", "3", "--size", "2", "--passes", "4"]
    monkeypatch.setattr(sys, "argv", ["shares", *short])
    shares.main()
    assert capsys.readouterr().out.count("bert.embeddings.word_embeddings ") == 2, "by kind, and by depth"
    monkeypatch.setattr(sys, "argv", ["shares", *short, "--even"])
    shares.main()
    assert "even in labels" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["shares", *short, "--temperatures"])
    shares.main()
    told = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(told) == 5
    assert all(0 < value <= 1 for value in told)
    monkeypatch.setattr(sys, "argv", ["shares", *short, "--gains", "6"])
    with pytest.raises(SystemExit):
        shares.main()
    monkeypatch.setattr(sys, "argv", ["shares", *short[:4], "--course", "0", "2", "--rows", "6"])
    shares.main()
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["after   0 steps", "after   2 steps"]
    assert told[0].endswith("believed 0.0200"), "what is expected at first"
    assert all(-1 < float(line.split("share ")[1].split(",")[0]) <= 1 for line in told)
    # Two labels, chances of 1/2 and 1/4 of the wrong one: weights in proportion to 2 and 1.
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert shares.evenness(logits, torch.tensor([0, 0]), 1) == pytest.approx(0.9)
    assert shares.evenness(logits, torch.tensor([0, 0]), 1e6) == pytest.approx(1)

    bench = MODELS["minilm"](Spec(model="minilm", corpus="sms"))
    found = shares.grouped(shares.measure(bench, 3, 2), shares.kind)
    total, trained = found.pop("all"), [p for p in bench.model.parameters() if p.requires_grad]
    assert total.numbers == sum(p.numel() for p in trained) == sum(share.numbers for share in found.values())
    gradients, drawn = [], bench.batches(2, 0)
    for _ in range(3):
        parts = torch.autograd.grad(bench.loss(next(drawn)), trained)
        gradients.append(torch.cat([part.reshape(-1) for part in parts]).double())
    mean = torch.stack(gradients).mean(0)
    variance = 2 * sum(float((g - mean).square().sum()) for g in gradients) / 2
    assert total.signal == pytest.approx(float(mean.square().sum()) - variance / 6, rel=1e-3)
    assert total.row == pytest.approx(total.signal + variance, rel=1e-3)

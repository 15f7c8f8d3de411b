"""Every benchmark runs, tiny, so that none can rot."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import chromium
import models
import tiny

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_every_benchmark_has_a_test_here() -> None:
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert names == {
        "attacks",
        "audit",
        "catchup",
        "converge",
        "curvature",
        "decay_noise",
        "dry_run",
        "faults",
        "fuzz",
        "gpu_bits",
        "import_torch",
        "memory",
        "merge",
        "noise",
        "padding",
        "pictures",
        "plugins",
        "precision",
        "probe_noise",
        "prompts",
        "relay",
        "replay",
        "scaling",
        "shares",
        "simulate",
        "speed",
        "startup",
        "step",
        "update",
        "wire_bytes",
    }
    assert all(f"test_{name}" in dir(sys.modules[__name__]) for name in names)


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


def test_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import prompts

    scores = prompts.measure(tiny.recipe(tmp_path), 20, (("{text} it was", "terrible", "great"),))
    assert [score.rows for score in scores] == [20]
    assert "'{text} it was' terrible/great" in capsys.readouterr().out


def test_pictures(tmp_path: Path) -> None:
    if why := chromium.left_out():
        pytest.skip(why)
    # It forks, which a process of many threads should not.
    words = [sys.executable, BENCHMARKS / "pictures.py", "--quick", "--out", tmp_path]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mallory: " in done.stdout
    assert done.stdout.count("banned by the owner") == 1
    for name in ("desktop-light", "phone-dark"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_of_a_card(tmp_path: Path) -> None:
    import pictures

    if why := chromium.left_out():
        pytest.skip(why)
    pictures.shoot_card(tiny.run(tiny.recipe(tmp_path, steps=3)), tmp_path / "pictures")
    for name, width in pictures.CARD_SHOTS.items():
        head = (tmp_path / "pictures" / f"{name}.png").read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") == width  # No wider: nothing in the card pushes the page open.


def save_reviews(folder: Path) -> str:
    """Rows of two sources, as the real reviews have them."""
    lines = tiny.save_rows(folder / "plain.csv", 400).read_text().splitlines()
    table = [
        lines[0] + ",source",
        *(f"{line},{('imdb', 'rotten_tomatoes')[i % 2]}" for i, line in enumerate(lines[1:])),
    ]
    (folder / "reviews.csv").write_text("\n".join(table) + "\n")
    return str(folder / "reviews.csv")


def test_attacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import attacks
    from hostility import reviews
    from hostility.behaviour import ATTACKS
    from hostility.game import Scale

    data = reviews.load(save_reviews(tmp_path), test_rows=40)
    scale = Scale(rounds=4, batch=8, seeds=2)
    rows = attacks.measure(data, scale)
    assert len(rows) == len(ATTACKS) * (len(attacks.DEFENCES) - 1) + 2
    for row in rows:
        assert all(outcome.in_place is not False for outcome in row.outcomes), row
        assert all(0 <= accuracy <= 1 for accuracy in (*row.accuracies, *row.excluded))
    quiet = [row for row in rows if row.attack == "sign flip"]
    assert all(outcome.in_place and outcome.rounds == 4 for row in quiet for outcome in row.outcomes)
    banned = quiet[-1]
    assert banned.defence == "sum, banned halfway"
    assert banned.excluded == banned.accuracies, "once they are banned, nothing of theirs is left"
    attacks.write(tmp_path / "out", rows, scale)
    assert json.loads((tmp_path / "out" / "attacks.json").read_text())["scale"]["rounds"] == 4
    assert (tmp_path / "out" / "attacks.png").stat().st_size > 1000
    lines = (tmp_path / "out" / "attacks.md").read_text().splitlines()
    assert len(lines) == 2 + len(ATTACKS)
    assert "taken back exactly in 2 of 2" in capsys.readouterr().out


def test_attacks_say_what_their_papers_say() -> None:
    import random

    from hostility import behaviour
    from hostility.behaviour import View

    own = View([1.0, -2.0, 3.0], [0.5, -0.25], False, random.Random(0))
    shared = View([1.0, 2.0, 6.0], [0.5, -0.25], True, random.Random(0))
    assert list(behaviour.flip(own)) == [-0.5, 0.25]
    assert list(behaviour.inner_product(0.5)(own)) == [-0.25, 0.125]
    assert list(behaviour.inner_product(0.5)(shared)) == [-1.5, -1.5]
    assert list(behaviour.little(1.0)(shared)) == pytest.approx([3 - (14 / 3) ** 0.5] * 2)
    assert list(behaviour.little(1.0)(own)) == pytest.approx([-2 - (2 / 3) ** 0.5, 2 + (2 / 3) ** 0.5])
    assert list(behaviour.mimic(shared)) == [1.0, 1.0]
    assert list(behaviour.sybils(shared)) == [-0.5, -0.5]
    # 50 workers, 24 of them hostile: 2 supporters are needed of 26, so that 24 of 26 may be farther off.
    assert behaviour.most_deviations(50, 24) == pytest.approx(1.426, abs=1e-3)


def test_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import merge
    from hostility import reviews

    scale = merge.Scale(together=2, apart=(1, 3), after=2, peers=4, batch=8, rates=(0.01, 0.02), seeds=2)
    rows = merge.measure(reviews.load(save_reviews(tmp_path), test_rows=40), scale)
    assert [(row.rate, row.seed, row.apart) for row in rows] == [
        (rate, seed, apart) for rate in (0.01, 0.02) for seed in (0, 1) for apart in (1, 3)
    ]
    for row in rows:
        assert row.exact, "a union is what one half gets that hears the other's messages"
        assert set(row.accuracy) == set(row.loss) == set(merge.NAMES)
        assert row.moved["union"] > 0
    merge.write(tmp_path / "out", rows, scale)
    assert len((tmp_path / "out" / "merge.md").read_text().splitlines()) == 2 + 4
    assert len(json.loads((tmp_path / "out" / "merge.json").read_text())["rows"]) == 8
    assert "exact: True" in capsys.readouterr().out


def test_probe_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import probe_noise

    errors = probe_noise.measure(tiny.recipe(tmp_path), 3, (-10, -6))
    assert errors["fp32", -10] == 0
    assert 0 < errors["fp32", -6] < 1
    assert errors["bf16", -10] > 0
    assert "rms projected gradient" in capsys.readouterr().out


def test_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import padding

    path = tiny.recipe(tmp_path, batch_size=4)
    texts = [f"{'very ' * (7 * i % 23)}good,1" for i in range(240)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *texts]))
    random, _, alone, together = padding.measure(path, 2)
    assert random.own == alone.own == together.own == pytest.approx(200 * 14, rel=0.1)
    assert random.computed > 1.3 * together.own > together.computed > together.own
    assert random.waited > alone.waited > together.waited
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import precision

    ratio, chosen = precision.measure(tiny.recipe(tmp_path, precision="fp32"), 8, 2)
    assert ratio > 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["fp32", "bf16", "bf16"]
    assert said[-1].endswith(f"auto: {chosen}")
    assert chosen.reason != "as the recipe says"


def test_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import audit

    found = audit.measure(tiny.recipe(tmp_path), peers=2, rounds=6, public_rows=8)
    assert found.differences["again"] == (0, 0, 0, 0)
    assert found.differences["other precision"][2] > 0
    assert found.differences["late messages"][2] > 0
    assert found.power["flipped signs"] > 0.5
    assert -1 <= found.correlation <= 1
    assert audit.chance_to_name(20, found.power["flipped signs"], 2) > 0.9 > audit.chance_to_name(20, 0.02, 2)
    assert "public rows: correlation" in capsys.readouterr().out


def test_import_torch(capsys: pytest.CaptureFixture[str]) -> None:
    import import_torch

    median, least = import_torch.measure(2)
    assert 0 < least <= median < 1000
    assert "2 runs: median" in capsys.readouterr().out


def test_plugins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import plugins

    model, reviews = tiny.save_model(tmp_path / "model"), tiny.save_rows(tmp_path / "reviews.csv", 64)
    runs = plugins.measure(
        {
            "trainer_sentiment": [str(model), str(reviews), "--steps", "4", "--batch", "4"],
            "lightning_digits": ["--epochs", "2"],
        }
    )
    found = {(run.example, run.way): run for run in runs}
    assert len(found) == 8
    for example in ("trainer_sentiment", "lightning_digits"):
        assert found[example, "script's rate"].last_loss != found[example, "shared-seed"].last_loss
        assert found[example, "as it stands"].optimizer_state > 0
        assert found[example, "shared-seed"].optimizer_state == 0
        assert found[example, "inference"].first_loss is None
        assert found[example, "shared-seed"].first_loss is not None
    assert min(run.peak for run in runs) > 50
    assert "shared-seed" in capsys.readouterr().out


def test_a_line_that_an_example_no_longer_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import plugins

    monkeypatch.setitem(plugins.CHANGES, "lightning_digits", {"shared-seed": ("gone()", "")})
    with pytest.raises(ValueError, match=r"examples/lightning_digits.py has no line 'gone\(\)'"):
        plugins.run("lightning_digits", "shared-seed", [], tmp_path)


def test_wire_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    import wire_bytes

    rows = wire_bytes.measure(128)
    assert [row.samples for row in rows] == [1, 8, 64]
    # Live, each message has 29 bytes of header and 64 of signature; otherwise 64 messages share a signature.
    assert [row.live for row in rows] == [94.0, (93 + 8) / 8, (93 + 64) / 64]
    assert all(row.chunk < row.log < row.live for row in rows)
    assert "a heartbeat:" in capsys.readouterr().out


def test_gpu_bits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    import gpu_bits

    results = gpu_bits.measure(gpu_bits.Sizes(elements=2_500, vocabulary=19, width=24, samples=3))
    assert len(results) == 13
    assert all(results.values())
    out = capsys.readouterr().out
    assert ("no GPU here: Triton's interpreter" in out) != torch.cuda.is_available()
    assert "PASS update\n" in out
    assert "13 of 13 are the same" in out


def test_gpu_bits_finds_wrong_bits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    import gpu_bits
    from shared_seed.noise import gpu

    add_signs = gpu.add_signs
    monkeypatch.setattr(
        gpu, "add_signs", lambda values, s, amounts, t, *rest: add_signs(values, s, amounts, t + 1)
    )
    results = gpu_bits.measure(gpu_bits.Sizes(elements=300, vocabulary=5, width=8, samples=2))
    wrong = {name.split(":")[0] for name, passed in results.items() if not passed}
    assert wrong >= {"sum of signs", "update", "dense tensors at +1 epsilon", "dense tensors at -1 epsilon"}
    assert results["rows of signs"]
    assert "FAIL sum of signs" in capsys.readouterr().out


REPORT = """<testsuites><testsuite>
<testcase classname="a" name="kept"/>
<testcase classname="a" name="lost">{failure}</testcase>
<testcase classname="a" name="never"><failure message="as ever"/></testcase>
<testcase classname="a" name="out"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""


def test_upstream_compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    import compare

    (tmp_path / "stock.xml").write_text(REPORT.format(failure=""))
    (tmp_path / "plugin.xml").write_text(REPORT.format(failure='<failure message="ModelError: no&#10;more"/>'))
    words = [str(tmp_path / "stock.xml"), str(tmp_path / "plugin.xml"), "--list", str(tmp_path / "list.md")]
    monkeypatch.setattr(sys, "argv", ["compare.py", *words])
    compare.main()
    out = capsys.readouterr().out
    assert "pass stock: 2 of 4" in out
    assert "of these, pass with the plugin: 1 = 50.0 %" in out
    assert (tmp_path / "list.md").read_text() == "- failed: ModelError: no\n  - `a::lost`\n"


def test_upstream_lightning_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    from lightning.pytorch import Trainer
    from lightning.pytorch.strategies import DDPStrategy

    import lightning_plugin

    arguments = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    lightning_plugin.pytest_configure(None)
    try:
        assert type(Trainer(**arguments).strategy).__name__ == "SharedSeedStrategy"
        assert isinstance(Trainer(devices=2, **arguments).strategy, DDPStrategy)
    finally:
        lightning_plugin.pytest_unconfigure(None)
    assert type(Trainer(**arguments).strategy).__name__ == "SingleDeviceStrategy"


def test_decay_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import decay_noise

    of_loss, of_decay = decay_noise.measure(tiny.recipe(tmp_path), 3)
    assert of_loss > 0
    assert of_decay > 0
    assert "rms over 3 directions" in capsys.readouterr().out


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import dry_run

    # Linux counts to a child what its parent has had: an estimate must not.
    ballast = bytearray(2_000_000_000)
    assert not any(ballast[:: 1 << 20])
    dry_run.main([str(tiny.recipe(tmp_path)), "training.batch_size=4"])
    said = capsys.readouterr().out.splitlines()
    assert 0.5 < float(said[0].rsplit(":", 1)[1]) < 2
    assert float(said[1].rsplit(":", 1)[1]) > 0


def test_upstream_transformers_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    from transformers import Trainer, TrainingArguments

    import transformers_plugin
    from trainers import rows

    own = Trainer.train
    undo = transformers_plugin._patch()
    try:
        arguments = TrainingArguments(str(tmp_path), max_steps=2, use_cpu=True, report_to=[], save_strategy="no")
        trainer = Trainer(model=models.llama(), args=arguments, train_dataset=rows())
        trainer.train()
    finally:
        undo()
    assert Trainer.train is own
    assert [type(c).__name__ for c in trainer.callback_handler.callbacks].count("SharedSeedCallback") == 1
    assert len(trainer.optimizer.state) == 0


@pytest.fixture
def short(tmp_path: Path) -> Any:
    """Options of the speed benchmarks for a tiny model."""
    from common.options import Options

    return Options((str(tiny.save_model(tmp_path / "model")),), quick=True)


def test_step(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import step

    rows = step.measure(short, ((2, 8),))
    methods = {(row.precision, row.method) for row in rows}
    assert len(methods) == len(rows) == 7 + 9
    assert {("fp32", "LOZO"), ("bf16", "plain, apart"), ("bf16", "MeZO, bf16 weights")} < methods
    assert all(row.to_plain == 1 for row in rows if row.method == "plain pair")
    assert all(row.ours_faster == 1 for row in rows if row.method == "ours")
    assert all(0 < row.least <= row.seconds for row in rows)
    judged = step.targets([dataclasses.replace(row, tokens=32) for row in rows])
    assert [target.limit for target in judged] == [1.15, 3, 1.15, 8]
    assert "of plain" in capsys.readouterr().out


def test_update(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import update

    rows = update.measure(short, (8, 64))
    assert [row.gradients for row in rows] == [8, 64]
    assert all(row.parameters > 1000 and row.copies > 0 and row.than_a_pass_each > 0 for row in rows)
    assert [target.limit for target in update.targets(rows)] == [2, 4, 30]
    update.check_bits(short.models[0], "cpu")
    assert "bits on cpu as on the CPU" in capsys.readouterr().out


def test_noise(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import noise

    rows = noise.measure(short, 1 << 12)
    assert [row.method for row in rows] == ["signs", "shift"]
    assert all(row.nanoseconds > 0 for row in rows)
    assert [target.limit for target in noise.targets(rows)] == [1.3, 1.3]
    assert "ns a weight" in capsys.readouterr().out


def test_replay(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import replay

    (row,) = replay.measure(short, 200)
    assert row.gradients == 20
    assert min(row.seconds, row.setup, row.rate, row.than_one_by_one, row.than_decomfl) > 0
    base = replay.Base(short.models[0], "cpu")
    before = models.bits(base.model)
    base.seconds(3)
    assert models.bits(base.model) == before
    assert [(target.limit, target.at_least) for target in replay.targets([row])] == [(50, True)]
    assert "20 gradients in" in capsys.readouterr().out


def test_memory(short: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import memory
    from common import resident

    rows = memory.measure(short, (2, 8), ("inference", "ours"))
    assert [row.way for row in rows] == ["inference", "ours"]
    assert all(50 < row.after_loading <= row.peak for row in rows)
    assert rows[0].to_inference == 1
    assert [target.limit for target in memory.targets(rows)] == [1.05]
    with pytest.raises(RuntimeError, match="resident ours failed"):
        memory.run("ours", "nowhere", (2, 8), 1, "cpu")
    capsys.readouterr()
    for way in resident.WAYS:
        resident.main([way, short.models[0], "2", "8", "1", "cpu"])
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["after_loading"] > 0


def test_startup(short: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import startup

    parts = {"import": 1.0, "open": 2.0, "step": 3.0, "total": 9.0}
    row = startup.compare("tiny", "warm", [{"total": 5.0}, {"total": 7.0}], [parts, {**parts, "total": 8.0}])
    assert (row.inference, row.added, row.importing, row.opening, row.stepping) == (6, 2.5, 1, 2, 3)
    found = startup.run("ours", short.models[0], (2, 8), "cpu", {})
    assert set(found) == {"loading", "import", "open", "step", "total"}
    assert found["total"] == pytest.approx(sum(found.values()) - found["total"])
    assert [(target.limit, target.met) for target in startup.targets([row])] == [(2, False)]
    assert "a first step adds 2.50 s" in capsys.readouterr().out


def test_scaling(short: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import scaling

    model = short.models[0]
    extent = scaling.Extent((model,), ((1, 8), (2, 8)), (1, 4), (1, 5), model, (2, 8), 1)
    curves = scaling.measure(short, tmp_path / "out", extent)
    assert [curve.name for curve in curves] == ["parameters", "tokens", "peers", "gradients"]
    assert all(len(values) == len(curve.x) for curve in curves for values in curve.seconds.values())
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {f"{curve.name}.png" for curve in curves}
    assert json.loads((tmp_path / "out" / "scaling.json").read_text())["machine"]["cores"] > 0
    assert "our replay" in capsys.readouterr().out


def test_simulate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import simulate

    shapes = simulate.TOPOLOGIES
    whole = {setting: dict.fromkeys(shapes, (9,)) for setting in ("calm", "rough", "free")}
    extent = simulate.Extent(whole, {"calm": {"tree": (30,)}, "narrow": {"flat": (20,)}}, (5, 20))
    rows = simulate.measure(tmp_path / "out", extent)
    assert {row.setting for row in rows} == {"calm", "rough", "free", "narrow"}
    assert {row.shape for row in rows} == {"flat", "hubs", "relayed", "tree"}
    assert all(row.broken == [] for row in rows)
    assert {row.peers for row in rows if row.whole < row.peers + row.relays} == {20, 30}
    written = json.loads((tmp_path / "out" / "swarm.json").read_text())
    assert [row["digest"] for row in written["runs"]] == [row.digest for row in rows]
    assert [row["peers"] for row in written["costs"]] == [5, 20]
    assert all(row["message"] > 0 and row["heartbeat_bytes"] > 100 for row in written["costs"])
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {
        "busiest",
        "equal",
        "frames",
        "kinds",
        "python",
        "received",
        "rough",
    }
    assert f"digest {rows[0].digest}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["simulate.py", "--one", "flat", "3", "--rounds", "1", "--free"])
    assert simulate.main() == 0
    assert "flat         3 peers,     3 whole:     3 messages" in capsys.readouterr().out


def test_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import faults
    from faulting.runner import Options
    from faulting.schedule import Plan

    options = Options(Plan(6, 4, 1, seed=2, kills=3), "proxy", pause=0.2, deadline=1.0)
    assert faults.measure(options, tmp_path / "out"), capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "faults.json").read_text())
    assert [check["wrong"] for check in written["checks"]] == [[]] * 7
    assert written["killed"]["peer"] >= 3
    assert written["rejoin"]["all"]["count"] >= 1
    assert written["messages"] > 20
    assert written["network"] == "proxy"
    assert "| same weights everywhere | kept | 4 replicas, " in (tmp_path / "out" / "faults.md").read_text()
    assert "kept: 4 replicas" in capsys.readouterr().out


def test_fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import fuzz
    from fuzzing import targets

    words = [word for name in targets.TARGETS for word in ("--target", name)]
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--minutes", "0.005", "--keep", str(tmp_path / "found"), *words])
    assert fuzz.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(targets.TARGETS)
    assert all("0 broken promises" in line and int(line.split()[1].replace(",", "")) > 0 for line in lines)
    assert not (tmp_path / "found").exists()
    assert "atheris" not in sys.modules


def test_fuzz_keeps_what_breaks_a_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fuzz
    from fuzzing import targets

    def fails(data: bytes) -> None:
        assert b"\x00" not in data, "a zero"

    broken = targets.Target(fails, (), lambda: [b"abc\x00"])
    monkeypatch.setitem(targets.TARGETS, "codec", broken)
    found = fuzz.measure("codec", 0.05)
    (why,) = found.broken
    assert why.startswith("AssertionError at test_benchmarks.py:")
    fuzz.keep(found, tmp_path)
    (path,) = tmp_path.iterdir()
    assert b"\x00" in path.read_bytes()
    assert why in capsys.readouterr().out


def test_relay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import relay

    extent = relay.Extent(1, 2, 30, (1, 8), (0.2,), 0.2)
    rows = relay.measure(extent, tmp_path / "out", BENCHMARKS.parent / "src")
    assert all(row.rate > 0 and row.lost == 0 for row in rows)
    assert [(row.what, row.samples) for row in rows if row.share == 1] == [
        ("proxy", 1),
        ("proxy, encrypted", 1),
        ("verification", 1),
        ("relay before", 1),
        ("relay", 1),
        ("relay", 8),
        ("two relays", 1),
    ]
    assert all(0 < row.p50_ms <= row.p99_ms for row in rows if row.share < 1)
    written = json.loads((tmp_path / "out" / "relay.json").read_text())
    assert [row["rate"] for row in written["medians"]] == [row.rate for row in rows]
    assert "| two relays, 1 samples | 20 % |" in (tmp_path / "out" / "relay.md").read_text()
    assert "one signature verified" in capsys.readouterr().out


def test_catchup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import catchup

    found = catchup.measure(catchup.Extent(10, 100, 0.05, 1.0), tmp_path / "out")
    assert found.whole.messages >= 1000
    assert found.whole.began_with == 0
    first, second = found.halves
    assert first.messages >= 500
    assert first.began_with == 0 < second.began_with
    assert second.messages >= 1000
    assert found.calm.lost == found.meanwhile.lost == 0
    assert found.calm.count > 0 < found.meanwhile.count
    assert found.full.log_bytes > found.empty.log_bytes
    written = json.loads((tmp_path / "out" / "catchup.json").read_text())
    assert written["found"]["whole"]["received"] == found.whole.received
    assert "| 1,000 messages |" in capsys.readouterr().out


def test_speed(short: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import speed

    judged = speed.measure(short, tmp_path, ("update", "replay"))
    written = json.loads((tmp_path / "speed.json").read_text())
    assert [target["what"] for target in written["targets"]] == [target.what for target in judged]
    assert len(written["rows"]["update"]) == 3
    assert (tmp_path / "speed.png").stat().st_size > 1000
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    others = {"attacks", "converge", "merge", "precision", "scaling", "simulate", "speed"}
    assert set(speed.PARTS) | others == {
        path.stem for path in BENCHMARKS.glob("*.py") if "from common" in path.read_text()
    }


def test_targets_say_by_how_much_they_were_missed() -> None:
    from common.target import Target, table

    targets = [Target("a", 2, 1.5), Target("b", 2, 3), Target("c", 4, 3, at_least=True, unit=" s")]
    assert [target.verdict for target in targets] == ["met", "missed by 50 %", "missed by 25 %"]
    assert table(targets).splitlines()[-1] == "| c | >= 4 s | 3 s | missed by 25 % |"


def test_ratios_are_taken_within_rounds() -> None:
    from common.timing import Times, contest

    times = Times()
    for round_, (a, b) in enumerate([(1.0, 2.0), (10.0, 20.0), (3.0, 9.0)]):
        times.note("a", round_, a)
        times.note("b", round_, b)
    assert times.ratio("b", "a") == 2
    assert times.least_ratio("b", "a") == 2
    calls: list[str] = []
    contest({name: lambda name=name: calls.append(name) for name in "xyz"}, 3, {"y": 2}, ("z",))
    assert calls == ["x", "y", *"xyz", *"zx", *"zxy"]


def test_other_methods_do_what_their_papers_say(short: Any) -> None:
    from common import decomfl, lozo, mezo
    from common.workloads import Workload, batch, build

    model = build(short.models[0])
    before = {name: values.clone() for name, values in model.named_parameters()}
    mezo.add(mezo.draw(model, 3), 0.5)
    assert any(not torch.equal(values, before[name]) for name, values in model.named_parameters())
    mezo.add(mezo.draw(model, 3), -0.5)
    for name, values in model.named_parameters():
        torch.testing.assert_close(values, before[name])
    work = Workload(model, batch(model, 2, 8))
    for step in (mezo.step(work), decomfl.step(work), lozo.step(work)):
        step()
    for name, values in model.named_parameters():
        torch.testing.assert_close(values, before[name], rtol=1e-3, atol=1e-4)

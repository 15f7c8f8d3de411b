"""Every benchmark runs, tiny, so that none can rot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import tiny

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_every_benchmark_has_a_test_here() -> None:
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    assert names == {"decay_noise", "gpu_bits", "import_torch", "plugins", "probe_noise", "prompts"}
    assert all(f"test_{name}" in dir(sys.modules[__name__]) for name in names)


def test_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import prompts

    scores = prompts.measure(tiny.recipe(tmp_path), 20, (("{text} it was", "terrible", "great"),))
    assert [score.rows for score in scores] == [20]
    assert "'{text} it was' terrible/great" in capsys.readouterr().out


def test_probe_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import probe_noise

    errors = probe_noise.measure(tiny.recipe(tmp_path), 3, (-10, -6))
    assert errors["fp32", -10] == 0
    assert 0 < errors["fp32", -6] < 1
    assert errors["bf16", -10] > 0
    assert "rms projected gradient" in capsys.readouterr().out


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
    assert len(found) == 6
    for example in ("trainer_sentiment", "lightning_digits"):
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


def test_gpu_bits(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    import gpu_bits

    results = gpu_bits.measure(gpu_bits.Sizes(elements=2_500, vocabulary=19, width=24, samples=3))
    assert len(results) == 16
    assert all(results.values())
    out = capsys.readouterr().out
    assert ("no GPU here: Triton's interpreter" in out) != torch.cuda.is_available()
    assert "PASS update\n" in out
    assert "16 of 16 are the same" in out


def test_gpu_bits_finds_wrong_bits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton", reason="Triton is there on Linux only")
    import gpu_bits
    from shared_seed.noise import gpu

    shift = gpu.shift
    monkeypatch.setattr(gpu, "shift", lambda values, s, t, p, amount: shift(values, s, t + 1, p, amount))
    results = gpu_bits.measure(gpu_bits.Sizes(elements=300, vocabulary=5, width=8, samples=2))
    wrong = {name.split(":")[0] for name, passed in results.items() if not passed}
    assert wrong >= {"signs", "shift", "dense tensors at +1 epsilon", "dense tensors at -1 epsilon"}
    assert results["accumulate"]
    assert "FAIL shift" in capsys.readouterr().out


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


def test_upstream_transformers_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "upstream"))
    from transformers import Trainer, TrainingArguments

    import models
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

"""``strategy="shared_seed"`` is known to Lightning without an import, and ``import torch`` never suffers."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import pytest

from shared_seed import autoload


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_entry_point_of_the_installed_package_is_ours() -> None:
    (found,) = [point for point in entry_points(group="torch.backends") if point.name == "shared_seed"]
    assert found.load() is autoload.install


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_trainer_knows_the_name_without_an_import_of_ours(package: str) -> None:
    code = f"""
import sys
import {package} as pl
assert "shared_seed.integrations.lightning.peer" not in sys.modules
trainer = pl.Trainer(strategy="shared_seed", accelerator="cpu", logger=False, enable_checkpointing=False)
print(type(trainer.strategy).__module__, isinstance(trainer.strategy, pl.strategies.Strategy))
"""
    home = "shared_seed.integrations." + ("lightning.strategy" if "." in package else "pytorch_lightning")
    # Lightning itself is not free of warnings.
    assert run(f"import warnings; warnings.simplefilter('ignore')\n{code}") == f"{home} True"


@pytest.mark.parametrize(
    "imports",
    [
        "import shared_seed, lightning.pytorch as pl",
        "import lightning.pytorch as pl, shared_seed",
        "import shared_seed; from shared_seed.integrations.lightning import SharedSeedStrategy; "
        "import lightning.pytorch as pl",
    ],
)
def test_importing_the_package_registers_where_torch_loads_no_extensions(imports: str) -> None:
    code = f"""
import warnings; warnings.simplefilter('ignore')
import sys
{imports}
print(pl.strategies.StrategyRegistry.available_strategies().count("shared_seed"))
"""
    assert run(code, TORCH_DEVICE_BACKEND_AUTOLOAD="0") == "1"


def test_importing_torch_loads_nothing_of_ours_but_the_hook() -> None:
    code = "import sys, torch; print(*sorted(name for name in sys.modules if name.startswith('shared_seed')))"
    assert run(code) == "shared_seed shared_seed.autoload"


def test_the_hook_goes_when_both_names_are_known_and_leaves_the_modules_their_loaders() -> None:
    code = """
import warnings; warnings.simplefilter('ignore')
import sys, torch
before = [type(f).__name__ for f in sys.meta_path].count("_Finder")
import lightning.pytorch, pytorch_lightning
after = [type(f).__name__ for f in sys.meta_path].count("_Finder")
loaders = {type(m.__spec__.loader).__name__ for m in (lightning.pytorch.strategies, pytorch_lightning.strategies)}
print(before, after, loaders)
"""
    assert run(code) == "1 0 {'SourceFileLoader'}"


class Registry(dict[str, Any]):
    def register(self, name: str, strategy: Any, description: str) -> None:
        self[name] = (strategy, description)


def strategies(registry: Any) -> ModuleType:
    module = ModuleType("lightning.pytorch.strategies")
    module.StrategyRegistry = registry  # type: ignore[attr-defined]
    return module


def test_a_name_is_registered_once() -> None:
    registry = Registry()
    autoload.register(strategies(registry))
    first = registry["shared_seed"]
    autoload.register(strategies(registry))
    assert registry == {"shared_seed": first}


def test_a_registry_that_fails_is_warned_about_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Registry):
        def register(self, *args: Any, **kwargs: Any) -> None:
            raise TypeError("changed")

    monkeypatch.setitem(sys.modules, "lightning.pytorch.strategies", strategies(Broken()))
    with pytest.warns(UserWarning, match=r"could not register .* \(TypeError\('changed'\)\); import shared_seed"):
        autoload.install()

"""Who may import what, read off the source: the direction of imports is the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shared_seed

ROOT = Path(shared_seed.__file__).parent

ONLY_IN = {
    "zmq": ("shared_seed.swarm.zmq",),
    "socket": ("shared_seed.swarm.zmq.sockets",),
    "nacl": ("shared_seed.identity",),
    "time": ("shared_seed.clock",),
    "lightning": ("shared_seed.integrations.lightning",),
    "pytorch_lightning": ("shared_seed.integrations.pytorch_lightning",),
    "transformers": ("shared_seed.integrations.transformers",),
    "peft": ("shared_seed.integrations.transformers",),
    "datasets": ("shared_seed.data",),
    "pyarrow": ("shared_seed.peek",),
    "huggingface_hub": ("shared_seed.card", "shared_seed.hub", "shared_seed.sources"),
    "jinja2": ("shared_seed.report",),
    "markupsafe": ("shared_seed.report",),
    "triton": ("shared_seed.noise.gpu",),
    "numba": ("shared_seed.noise", "shared_seed.lookup", "shared_seed.storage"),
    "llvmlite": ("shared_seed.lookup",),
}
"""Outside package: the modules or packages of ours that may import it."""

FRAMEWORKS = {
    "lightning",
    "pytorch_lightning",
    "transformers",
    "peft",
    "datasets",
    "huggingface_hub",
    "accelerate",
}
SOCKETS_AND_CLOCKS = {"zmq", "socket", "time", "datetime", "shared_seed.clock", "shared_seed.swarm.zmq"}

PURE = [
    "shared_seed",
    "shared_seed.errors",
    "shared_seed.noise",
    "shared_seed.noise.reference",
    "shared_seed.noise.cpu",
    "shared_seed.directions",
    "shared_seed.grid",
    "shared_seed.codec",
    "shared_seed.messages",
    "shared_seed.identity",
    "shared_seed.manifest",
    "shared_seed.admission",
    "shared_seed.aggregation",
    "shared_seed.swarm",
    "shared_seed.swarm.wire",
    "shared_seed.swarm.protocol",
    "shared_seed.swarm.address",
    "shared_seed.swarm.answers",
    "shared_seed.swarm.budget",
]
NUMERIC = ["shared_seed.update", "shared_seed.weights", "shared_seed.noise.device", "shared_seed.noise.gpu"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imported(name: str) -> Iterator[str]:
    """Every module that a module of ours names in an import statement, wherever in its text."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in SOURCES else node.module


def with_parents(name: str) -> list[str]:
    """``a.b.c`` -> ``a``, ``a.b``, ``a.b.c``: importing a module runs its packages too."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def reached(start: str) -> set[str]:
    """All modules of ours, and top-level names of others, that importing a module may lead to."""
    seen: set[str] = set()
    waiting = with_parents(start)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in SOURCES:
            for other in imported(name):
                ours = other.split(".")[0] == "shared_seed"
                waiting += with_parents(other) if ours else [other.split(".")[0]]
    return seen


def test_the_source_is_found() -> None:
    assert len(SOURCES) > 30
    assert "shared_seed.swarm.protocol" in SOURCES
    assert set(PURE) | set(NUMERIC) <= set(SOURCES)
    assert {m for m in SOURCES if m.startswith("shared_seed.noise")} >= {m for m in PURE if "noise" in m}


def test_reached_follows_imports_through_our_modules() -> None:
    assert "zmq" in reached("shared_seed.session")
    assert "numpy" in reached("shared_seed.directions")


@pytest.mark.parametrize(("package", "homes"), ONLY_IN.items(), ids=ONLY_IN.keys())
def test_a_package_is_imported_in_its_home_alone(package: str, homes: tuple[str, ...]) -> None:
    importers = {name for name in SOURCES if any(other.split(".")[0] == package for other in imported(name))}
    strangers = {n for n in importers if not any(n == home or n.startswith(home + ".") for home in homes)}
    assert strangers == set()
    assert importers


def test_nothing_but_the_dispatcher_reaches_the_gpu_kernels() -> None:
    importers = {name for name in SOURCES if "shared_seed.noise.gpu" in set(imported(name))}
    assert importers == {"shared_seed.noise.device"}


@pytest.mark.parametrize("name", PURE)
def test_what_peers_must_agree_on_reaches_no_torch_framework_socket_or_clock(name: str) -> None:
    assert reached(name) & ({"torch"} | FRAMEWORKS | SOCKETS_AND_CLOCKS) == set()


@pytest.mark.parametrize("name", NUMERIC)
def test_the_update_reaches_torch_but_no_framework_socket_or_clock(name: str) -> None:
    found = reached(name)
    assert "torch" in found
    assert found & (FRAMEWORKS | SOCKETS_AND_CLOCKS) == set()


@pytest.mark.parametrize(
    "name", ["shared_seed.noise", "shared_seed.noise.reference", "shared_seed.codec", "shared_seed.errors"]
)
def test_the_definitions_need_the_standard_library_alone(name: str) -> None:
    others = {n for n in reached(name) if n.split(".")[0] not in {"shared_seed", *sys.stdlib_module_names}}
    assert others == set()


def loaded_by(statement: str) -> set[str]:
    """Top-level names of the modules that a statement loads in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = loaded_by("import shared_seed")
    assert "shared_seed" in loaded
    assert loaded & {"torch", "transformers", "lightning", "zmq", "numba", "numpy", "pydantic", "msgspec"} == set()


def test_triton_is_loaded_only_where_there_is_a_gpu_to_draw_on() -> None:
    loaded = loaded_by("import shared_seed.session")
    assert {"torch", "numba"} <= loaded
    assert "triton" not in loaded


def test_importing_the_pure_modules_loads_no_torch_zmq_or_framework() -> None:
    loaded = loaded_by(f"import {', '.join(PURE)}")
    assert {"numba", "numpy", "msgspec"} <= loaded
    assert loaded & ({"torch", "zmq"} | FRAMEWORKS) == set()

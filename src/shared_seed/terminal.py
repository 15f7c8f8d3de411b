"""Where commands print: what is said there, recipes, names and files of strangers included, is letters alone."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from shared_seed.visible import cleaned


class Terminal(Console):
    """Standard output, or standard error, with neither markup nor emoji codes nor control characters in what is
    printed; colours and cursor movements are the console's own.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As every console, with texts :func:`shared_seed.visible.cleaned`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(cleaned(segment.text), segment.style)

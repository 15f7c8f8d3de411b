"""Which characters of somebody else's text people get to see."""

from __future__ import annotations

import re

OBEYED = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""For a regular expression's set: control characters, which terminals obey, and what ends lines or turns them
round.
"""

_HIDDEN = re.compile(rf"(?![\n\t])[{OBEYED}]")


def cleaned(text: str) -> str:
    """The text without what a terminal would obey; lines and tabs stay."""
    return _HIDDEN.sub("", text)

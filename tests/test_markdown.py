"""Hostile words in Markdown, as a real renderer reads them."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from shared_seed.markdown import block, code, plain, table, text

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "![pixel](https://evil.example/p.png)",
    "https://evil.example www.evil.example",
    "`code` ``more`` *bold* __bold__ ~~gone~~",
    "a\n\n# Heading\n- list\n```\nfence",
    "a | b || c",
    "---\nlicense: mit\n---",
    "$x$ {y} &amp; &lt;b&gt;",
    "right\u202eleft \x1b[31mred\x07",
    "\\",
    "`",
    "",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_is_one_paragraph_of_its_letters(hostile: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse("x " + text(hostile))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    inline = tokens[1].children or []
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == f"x {plain(hostile)}".rstrip()
    # This renderer makes no links of bare addresses; the Hub's does.
    assert "://" not in text(hostile)
    assert "www." not in text(hostile)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_code_is_one_piece_of_code_also_in_a_table(hostile: str) -> None:
    (paragraph,) = [t for t in MarkdownIt("commonmark").parse(f"x {code(hostile)} y") if t.type == "inline"]
    kinds = [token.type for token in paragraph.children or []]
    assert kinds == ["text", "code_inline", "text"]
    assert (paragraph.children or [])[1].content.strip() == plain(hostile).strip()
    cells = MarkdownIt("commonmark").enable("table").parse(table(("a", "b"), [(code(hostile), text(hostile))]))
    assert sum(token.type == "td_open" for token in cells) == 2


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_block_ends_where_its_lines_end(hostile: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"{block(hostile, 'yaml')}\n\nafter")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content.rstrip() == hostile.rstrip()


def test_lines_that_are_too_long_are_cut_off() -> None:
    assert len(plain("x" * 5000)) == 300
    assert plain("x" * 5000).endswith("…")

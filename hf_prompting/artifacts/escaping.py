"""Foreign text inside Markdown: nothing in a label, a template or a name can become markup."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import Any

# What begins markup anywhere, a link by its look, and what makes a list or heading at the beginning of a paragraph.
MARKUP = re.compile(r"[\\`*_{}\[\]|~$^@#]|:(?=\S)|(?<=www)\.|^\s*(?:[-+=]|\d+[.)])", re.IGNORECASE)


def visible(text: str) -> str:
    """Replace characters that move a cursor, hide, or reorder text by their escape: control and format characters.

    Newlines and tabs become ``\\n`` and ``\\t``; an ESC becomes ``\\x1b``; a right-to-left override ``\\u202e``.

    Example:
        >>> visible("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    return "".join(
        character
        if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def json_line(value: Any, *, ascii_only: bool = False) -> str:
    """Return JSON on one line that reads back equal and cannot steer a terminal; Chinese and others stay readable.

    Example:
        >>> json_line({"label": "好\\u202e"})
        '{"label": "好\\\\u202e"}'
    """
    text = json.dumps(value, ensure_ascii=ascii_only)
    return "".join(one if visible(one) == one else json.dumps(one)[1:-1] for one in text)


def inline(text: str) -> str:
    """Return text for the flow of a Markdown document or a table cell: it shows as written, on one line.

    Example:
        >>> inline("<b>*x*</b>")
        '&lt;b&gt;\\\\*x\\\\*&lt;/b&gt;'
    """
    escaped = MARKUP.sub(lambda found: f"{found.group()[:-1]}\\{found.group()[-1]}", visible(text))
    return html.escape(escaped, quote=False)


def fenced(text: str, language: str = "") -> str:
    """Return a code block whose fence is longer than any run of backticks inside.

    Example:
        >>> fenced("x").splitlines()[0]
        '```'
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = "\n".join(visible(line) for line in text.split("\n"))
    return f"{fence}{language}\n{lines}\n{fence}"

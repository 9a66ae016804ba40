"""Foreign text inside Markdown: nothing in a label, a template or a name can become markup."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import Any

# What begins markup anywhere, a link by its look, and what makes a list or heading at the beginning of a paragraph.
MARKUP = re.compile(r"[\\`*_{}\[\]|~$^@#]|:(?=\S)|(?<=www)\.|^\s*(?:[-+=]|\d+[.)])", re.IGNORECASE)

HIDING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories that move a cursor, hide, or reorder text


def visible(text: str) -> str:
    """Replace characters that move a cursor, hide, or reorder text by their escape: control and format characters.

    Newlines and tabs become ``\\n`` and ``\\t``; an ESC becomes ``\\x1b``; a right-to-left override ``\\u202e``.

    Example:
        >>> visible("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    return "".join(
        character
        if unicodedata.category(character) not in HIDING
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def json_line(value: Any, *, ascii_only: bool = False) -> str:
    """Return a value as JSON on one line in which nothing hides or reorders text on a terminal.

    JSON itself escapes only the control characters below U+0020; here a right-to-left override becomes ``\\u202e``,
    which every reader of JSON gives back as it was.

    Example:
        >>> json_line({"label": "a\\u202eb"})
        '{"label": "a\\\\u202eb"}'
    """
    text = json.dumps(value, ensure_ascii=ascii_only)
    return "".join(
        character if unicodedata.category(character) not in HIDING else json.dumps(character)[1:-1]
        for character in text
    )


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

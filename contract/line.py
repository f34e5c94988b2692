"""The rule for one line of text: words separated by single spaces.

It is given as a Python check, a JSON Schema and a GBNF rule.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

# A word holds neither NUL nor the white space that str.split knows.  The class lists what a word may hold, not what it
# must not.  With a negated class, llama.cpp refuses a character that comes as single bytes when a forbidden one begins
# with the same byte, for example the degree sign and the dash.
_CHARACTERS = (
    r"\x01-\x08\x0e-\x1b\x21-\x84\x86-\x9f\xa1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e"
    r"\u2060-\u2fff\u3001-\U0010ffff"
)
LINE_RULES = f'line ::= word more*\nmore ::= " " word\nword ::= [{_CHARACTERS}]+\n'
LINE_SCHEMA = {"type": "string", "pattern": r"^\S+( \S+)*$"}


def literal(text: str) -> str:
    """A GBNF string literal.  For line breaks and whatever `plain_line` accepts, its escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def plain_line(text: Any) -> str:
    """`text`, if a heading, an option or a fixed text may hold it.  Raises ValueError if not."""
    if any(unicodedata.category(char) == "Cc" for char in one_line(text)):
        raise ValueError(f"{text!r} holds a control character")
    return str(text)


def one_line(value: Any) -> str:
    """`value`, if it is one line of text.  Raises ValueError if not."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text, found {value!r}")
    if not is_line(value):
        raise ValueError(f"expected one line with single spaces, found {value!r}")
    return value


def is_line(text: str) -> bool:
    if text.isprintable():  # the usual text needs no split: the only printable white space is " "
        return "  " not in text and text.strip(" ") == text != ""
    return " ".join(text.split()) == text != "" and "\0" not in text


_ODD = re.compile(
    "[\0\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
)  # NUL, and all white space except " "


def flaw(text: str) -> tuple[int, int]:
    """Start and end of the first stretch that makes `text` not a line."""
    odd = _ODD.search(text)
    places = (0 if text.startswith(" ") else -1, text.find("  "), odd.start() if odd else -1)
    start = min((place for place in places if place >= 0), default=max(0, len(text) - 1))
    return start, max(min(start + 1, len(text)), len(text) - len(text[start:].lstrip()))

"""A jinja2 template file + its values -> text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render(
    template: Path, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]] | None = None, **options: Any
) -> str:
    """The filled template.  Raises jinja2.UndefinedError if a value is missing.

    `options` are those of jinja2.Environment, for example autoescape=True for a page.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, **options,
    )  # fmt: skip
    environment.filters |= {"cell": cell, "fenced": fenced} | dict(filters or {})
    return environment.get_template(template.name).render(values)


def cell(value: object) -> str:
    """Text for one cell of a Markdown table."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")


def fenced(value: object, language: str = "text") -> str:
    """A Markdown code block, its fence longer than any run of backticks in the text."""
    text = str(value)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"

"""Modelfile text, or /api/show's parameters -> commands, TEMPLATE, SYSTEM and parameters.

The rules are those of Ollama 0.34.2 (parser/parser.go).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plumbing.errors import UserError

Parameters = dict[str, tuple[float | str, ...]]  # name -> its values, in order; only `stop` has several
COMMANDS = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
    "requires",
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    line: int
    name: str  # lower case
    value: str  # unquoted, without the characters that Ollama drops
    written: str  # as in the file, with quotes
    closed: bool = True  # False: the file ended inside a quote

    def line_of(self, part: str) -> int:
        """The line of the file where `part` first appears in the value."""
        return self.line + self.value.partition(part)[0].count("\n")


@dataclass(frozen=True)
class Modelfile:
    template: str
    system: str
    parameters: Parameters


def load_modelfile(path: Path) -> Modelfile:
    try:
        return read_modelfile(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `python -m quantize` writes it into the model folder") from None


def read_modelfile(text: str) -> Modelfile:
    r"""The commands that determine the prompt and the parameters.

    >>> read_modelfile('FROM m.gguf\nSYSTEM Be brief.\nPARAMETER stop "</s>"\nPARAMETER num_ctx 1024').parameters
    {'stop': ('</s>',), 'num_ctx': (1024.0,)}
    """
    texts = {"template": "", "system": ""}
    pairs = []
    for command in read_commands(text):
        if command.name in texts:
            texts[command.name] = command.value
        elif command.name == "parameter":
            key, value = parameter(command)
            pairs.append((key.lower(), value))
    return Modelfile(texts["template"], texts["system"], _parameters(pairs))


def read_commands(text: str) -> Iterator[Command]:
    """Every command with the line where it begins.  A line that is not a command has its first word as name.

    A quoted value ends at the first line that ends with its quote; a quote inside a line does not end it.
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        number += 1
        match = re.match(r"[ \t]*([^\s#]\S*)[ \t]?(.*)", line, re.DOTALL)
        if not match:
            continue
        name, written = match[1].lower(), match[2]
        lead, body = _lead(name, written)
        closed = _unquoted(body.strip()) is not None
        while not closed and number < len(lines):
            body += lines[number]
            number += 1
            closed = _unquoted(body.strip()) is not None
        value = _unquoted(body.strip()) if closed else body
        yield Command(start + 1, name, lead + printable(value or ""), lead + body.rstrip("\r\n"), closed)


def parameter(command: Command) -> tuple[str, str]:
    """PARAMETER's name and value.  The name is as written: Ollama does not accept `Temperature`."""
    key, _, value = command.value.partition(" ")
    return key, value


def printable(text: str) -> str:
    """The characters of a text that Ollama keeps: of white space only blanks, tabs and line breaks; no invisible ones.

    >>> printable("5\\u00a0mg")
    '5mg'
    """
    return "".join(c for c in text if c.isprintable() or c in "\n\r\t")


def _lead(name: str, written: str) -> tuple[str, str]:
    """PARAMETER and MESSAGE have one more word before the value that may be quoted."""
    if name not in ("parameter", "message"):
        return "", written
    match = re.match(r"[ \t]*(\S+)[ \t]?(.*)", written, re.DOTALL)
    return (match[1] + " ", match[2]) if match else ("", written)


def _unquoted(text: str) -> str | None:
    """The value without its quotes; None if a quote is still open."""
    for quote in ('"""', '"'):
        if text.startswith(quote):
            ends = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if ends else None
    return text


def shown_parameters(text: str) -> Parameters:
    r"""/api/show's `parameters`: one line each, name and value in columns.

    >>> shown_parameters('num_ctx                        1024\nstop                           "</s>"')
    {'num_ctx': (1024.0,), 'stop': ('</s>',)}
    """
    pairs = [(name, value.strip()) for name, _, value in (line.partition(" ") for line in text.splitlines()) if name]
    return _parameters([(name, _plain(value)) for name, value in pairs])


def _plain(value: str) -> str:
    """A value without its quotes; Go's escapes are also Python's."""
    if not value.startswith('"'):
        return value
    try:
        return str(ast.literal_eval(value))
    except (SyntaxError, ValueError):
        return value


def _parameters(pairs: list[tuple[str, str]]) -> Parameters:
    found: Parameters = {}
    for name, value in pairs:
        found[name] = (*found.get(name, ()), value if name == "stop" else _number(value))
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

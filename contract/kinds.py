"""The kinds of section.  Each owns its whole syntax: write, read, describe, json_schema, gbnf.

The body of a section follows its heading.  An inline kind (prose, choice, fixed) is one line; a block kind (items,
pairs) begins on the next line and puts a mark before each of its lines.  So a line of a body is never a heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from contract.line import LINE_SCHEMA, flaw, is_line, literal, one_line, plain_line

MOST = 10_000  # words or items that a section may have at most: its grammar and its schema count them

Fault = tuple[str, int, int]  # (failure class, start and end in the body of the text that breaks the rule)


@dataclass(frozen=True)
class Prose:
    """One paragraph on one line: `min_words` to `max_words` words separated by single spaces."""

    min_words: int = 1
    max_words: int = 200
    block: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = ()
    missing: ClassVar[str] = "MISSING_SECTION"

    def __post_init__(self) -> None:
        _check_range("words", self.min_words, self.max_words)

    def write(self, value: Any) -> str:
        return one_line(value)

    def read(self, body: str) -> tuple[Any, list[Fault]]:
        if is_line(body):
            return body, _count_faults(body.count(" ") + 1, self.min_words, self.max_words, body)
        words = len(body.split(None, self.max_words))
        return body, [("WRONG_VALUE", *flaw(body)), *_count_faults(words, self.min_words, self.max_words, body)]

    def describe(self) -> str:
        return f"one paragraph of {self.min_words} to {self.max_words} words"

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": rf"^\S+( \S+){{{self.min_words - 1},{self.max_words - 1}}}$"}

    def gbnf(self) -> str:
        return f"word more{{{self.min_words - 1},{self.max_words - 1}}}"


@dataclass(frozen=True)
class Items:
    """A list of one-line items, each after the mark `- `; the value is a list of strings."""

    min_items: int = 1
    max_items: int = 20
    block: ClassVar[bool] = True
    missing: ClassVar[str] = "MISSING_SECTION"
    MARK: ClassVar[str] = "- "
    marks: ClassVar[tuple[str, ...]] = (MARK,)

    def __post_init__(self) -> None:
        _check_range("items", self.min_items, self.max_items)

    def write(self, value: Any) -> str:
        return "\n".join(self.MARK + one_line(item) for item in _a_list(value))

    def read(self, body: str) -> tuple[Any, list[Fault]]:
        lines = body.split("\n")
        faults = [_at(start, line) for start, line in _placed(lines) if not _is_marked(line, self.MARK)]
        value = [line.removeprefix(self.MARK) for line in lines]
        return value, faults + _count_faults(len(value), self.min_items, self.max_items, body)

    def describe(self) -> str:
        return f"a list of {self.min_items} to {self.max_items} items, each on its own line behind '{self.MARK}'"

    def json_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": LINE_SCHEMA, "minItems": self.min_items, "maxItems": self.max_items}

    def gbnf(self) -> str:
        item = f"{literal(self.MARK)} line"
        return f'{item} ("\\n" {item}){{{self.min_items - 1},{self.max_items - 1}}}'


@dataclass(frozen=True)
class Pairs:
    """A list of two-line pairs such as `Q: ...` and `A: ...`; the value is a list of {first: text, second: text}."""

    labels: tuple[str, ...] = ("Q", "A")
    min_items: int = 1
    max_items: int = 20
    block: ClassVar[bool] = True
    missing: ClassVar[str] = "MISSING_SECTION"

    def __post_init__(self) -> None:
        _check_range("items", self.min_items, self.max_items)
        if len(set(self.labels)) != 2 or not all(re.fullmatch(r"\w+", label) for label in self.labels):
            raise ValueError(f"'labels' is {list(self.labels)}, expected two different words")

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(f"{label}: " for label in self.labels)

    def write(self, value: Any) -> str:
        pairs = _a_list(value)
        for pair in pairs:
            if not isinstance(pair, dict) or set(pair) != set(self.labels):
                raise ValueError(f"expected an object with the keys {' and '.join(self.labels)}, found {pair!r}")
        return "\n".join(f"{label}: {one_line(pair[label])}" for pair in pairs for label in self.labels)

    def read(self, body: str) -> tuple[Any, list[Fault]]:
        lines = body.split("\n")
        faults: list[Fault] = []
        value: list[dict[str, str]] = []
        for number, (start, line) in enumerate(_placed(lines)):
            label = self.labels[number % 2]
            if not _is_marked(line, f"{label}: "):
                faults.append(_at(start, line))
            if number % 2 == 0:
                value.append({})
            value[-1][label] = line.removeprefix(f"{label}: ")
        if len(lines) % 2:
            faults.append(_at(len(body) - len(lines[-1]), lines[-1]))
        return value, faults + _count_faults(len(value), self.min_items, self.max_items, body)

    def describe(self) -> str:
        first, second = self.labels
        return f"{self.min_items} to {self.max_items} pairs, each a line '{first}: ...' and a line '{second}: ...'"

    def json_schema(self) -> dict[str, Any]:
        pair = {
            "type": "object",
            "properties": dict.fromkeys(self.labels, LINE_SCHEMA),
            "required": list(self.labels),
            "additionalProperties": False,
        }
        return {"type": "array", "items": pair, "minItems": self.min_items, "maxItems": self.max_items}

    def gbnf(self) -> str:
        first, second = (f"{literal(label + ': ')} line" for label in self.labels)
        pair = f'{first} "\\n" {second}'
        return f'{pair} ("\\n" {pair}){{{self.min_items - 1},{self.max_items - 1}}}'


@dataclass(frozen=True)
class Choice:
    """Exactly one of `options`."""

    options: tuple[str, ...]
    block: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = ()
    missing: ClassVar[str] = "MISSING_SECTION"

    def __post_init__(self) -> None:
        if len(self.options) < 2 or len(set(self.options)) != len(self.options):
            raise ValueError(f"'options' is {list(self.options)}, expected two or more different texts")
        for option in self.options:
            plain_line(option)

    def write(self, value: Any) -> str:
        if value not in self.options:
            raise ValueError(f"{value!r} is none of {', '.join(self.options)}")
        return str(value)

    def read(self, body: str) -> tuple[Any, list[Fault]]:
        return body, [] if body in self.options else [_at(0, body)]

    def describe(self) -> str:
        return "exactly one of: " + ", ".join(self.options)

    def json_schema(self) -> dict[str, Any]:
        return {"enum": list(self.options)}

    def gbnf(self) -> str:
        return "(" + " | ".join(literal(option) for option in self.options) + ")"


@dataclass(frozen=True)
class Fixed:
    """Always the same `text`, such as a disclaimer."""

    text: str
    block: ClassVar[bool] = False
    marks: ClassVar[tuple[str, ...]] = ()
    missing: ClassVar[str] = "NOTE_MISSING"

    def __post_init__(self) -> None:
        plain_line(self.text)

    def write(self, value: Any) -> str:
        if value != self.text:
            raise ValueError(f"{value!r} is not the fixed text {self.text!r}")
        return self.text

    def read(self, body: str) -> tuple[Any, list[Fault]]:
        """A text without one of the fixed text's words is weak; a text with all of them is a wrong value."""
        if body == self.text:
            return body, []
        return body, [("NOTE_WEAK", 0, len(body)) if _words(self.text) - _words(body) else _at(0, body)]

    def describe(self) -> str:
        return f"exactly this text: {self.text}"

    def json_schema(self) -> dict[str, Any]:
        return {"const": self.text}

    def gbnf(self) -> str:
        return literal(self.text)


Kind = Prose | Items | Pairs | Choice | Fixed
KINDS: dict[str, type[Kind]] = {"prose": Prose, "items": Items, "pairs": Pairs, "choice": Choice, "fixed": Fixed}


def _a_list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected a list that is not empty, found {value!r}")
    return value


def _is_marked(line: str, mark: str) -> bool:
    return line.startswith(mark) and is_line(line.removeprefix(mark))


def _count_faults(count: int, low: int, high: int, body: str) -> list[Fault]:
    if count < low:
        return [("TOO_SHORT", 0, len(body))]
    return [("TOO_LONG", 0, len(body))] if count > high else []


def _at(start: int, line: str) -> Fault:
    return ("WRONG_VALUE", start, start + len(line))


def _placed(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Each line with the position in the body where it begins."""
    start = 0
    for line in lines:
        yield start, line
        start += len(line) + 1


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _check_range(what: str, low: int, high: int) -> None:
    if not 1 <= low <= high <= MOST:
        raise ValueError(f"min_{what} is {low} and max_{what} is {high}, expected 1 <= min <= max <= {MOST}")

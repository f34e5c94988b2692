"""Each kind's whole syntax: what it writes, what it refuses to write, what it finds broken."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from contract.kinds import KINDS, Choice, Fixed, Items, Kind, Pairs, Prose
from contract.line import literal, plain_line

QA = Pairs(min_items=1, max_items=2)
YES_NO = Choice(("yes", "no"))
WRITTEN: list[tuple[Kind, Any, str]] = [
    (Prose(2, 3), "two words", "two words"),
    (Prose(1, 1), "**Note**:", "**Note**:"),
    (Items(1, 2), ["one thing", "- another"], "- one thing\n- - another"),
    (QA, [{"Q": "What?", "A": "That."}, {"A": "Q: x", "Q": "A"}], "Q: What?\nA: That.\nQ: A\nA: Q: x"),
    (Pairs(("Frage", "Antwort")), [{"Frage": "Was?", "Antwort": "Das."}], "Frage: Was?\nAntwort: Das."),
    (YES_NO, "no", "no"),
    (Fixed("Ask a doctor."), "Ask a doctor.", "Ask a doctor."),
]


@pytest.mark.parametrize(("kind", "value", "body"), WRITTEN)
def test_a_value_is_written_and_read_back(kind: Kind, value: Any, body: str) -> None:
    assert kind.write(value) == body
    assert kind.read(body) == (value, [])
    jsonschema.validate(value, kind.json_schema())


@pytest.mark.parametrize("change", [{"Q": ""}, {"B": "x"}, {"Q": None}])
def test_the_schema_of_a_pair_is_closed(change: dict[str, Any]) -> None:
    pair = {key: text for key, text in ({"Q": "What?", "A": "That."} | change).items() if text is not None}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([pair], QA.json_schema())


NO_LINE = [
    "",
    " ",
    "a\nb",
    "a  b",
    " a",
    "a ",
    "a\tb",
    "a\u00a0b",
    "a\u2028b",
    "a\x85",
    "a\0b",
    None,
    3,
    True,
    ["a"],
    {},
]
REFUSED: list[tuple[Kind, Any]] = [
    *((kind, value) for kind in (Prose(), Fixed("x"), YES_NO) for value in NO_LINE),
    *((Items(), [value]) for value in NO_LINE),
    *((QA, [{"Q": value, "A": "x"}]) for value in NO_LINE),
    *((kind, value) for kind in (Items(), QA) for value in ([], "", "x", None, {"Q": "a", "A": "b"}, 5)),
    *((QA, [pair]) for pair in ({"Q": "x"}, {"Q": "x", "A": "y", "B": "z"}, {}, "Q", ["Q", "A"])),
    (YES_NO, "maybe"),
    (YES_NO, "Yes"),
    (Fixed("Ask a doctor."), "Ask a doctor"),
]


@pytest.mark.parametrize(("kind", "value"), REFUSED, ids=lambda x: type(x).__name__ if hasattr(x, "gbnf") else ascii(x))
def test_what_cannot_be_read_back_is_not_written(kind: Kind, value: Any) -> None:
    with pytest.raises(ValueError):
        kind.write(value)


BROKEN: list[tuple[Kind, str, list[str]]] = [
    (Prose(3, 5), "one two", ["TOO_SHORT"]),
    (Prose(1, 2), "one two three", ["TOO_LONG"]),
    (Prose(1, 2), "one\ttwo three", ["WRONG_VALUE", "TOO_LONG"]),
    (Items(2, 3), "- one", ["TOO_SHORT"]),
    (Items(1, 1), "- one\n- two", ["TOO_LONG"]),
    (Items(1, 3), "- one\n* two\n-three", ["WRONG_VALUE", "WRONG_VALUE"]),
    (Items(1, 3), "- one\n-  two\n- ", ["WRONG_VALUE", "WRONG_VALUE"]),
    (QA, "Q: a\nA: b\nQ: c", ["WRONG_VALUE"]),
    (QA, "A: a\nQ: b", ["WRONG_VALUE", "WRONG_VALUE"]),
    (QA, "Q: a\nA: b\n" * 2 + "Q: a\nA: b", ["TOO_LONG"]),
    (Pairs(min_items=2), "Q: a\nA: b", ["TOO_SHORT"]),
    (YES_NO, "yes.", ["WRONG_VALUE"]),
    (Fixed("Ask a doctor."), "Ask  a doctor.", ["WRONG_VALUE"]),
    (Fixed("Ask a doctor."), "a Doctor? Ask", ["WRONG_VALUE"]),
    (Fixed("Ask a doctor."), "Ask a nurse.", ["NOTE_WEAK"]),
]


@pytest.mark.parametrize(("kind", "body", "expected"), BROKEN)
def test_what_is_broken_gets_its_class(kind: Kind, body: str, expected: list[str]) -> None:
    assert [cls for cls, _, _ in kind.read(body)[1]] == expected
    assert all(0 <= start < end <= len(body) for _, start, end in kind.read(body)[1])


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Prose(3, 5), "one paragraph of 3 to 5 words"),
     (Items(2, 4), "a list of 2 to 4 items, each on its own line behind '- '"),
     (QA, "1 to 2 pairs, each a line 'Q: ...' and a line 'A: ...'"), (YES_NO, "exactly one of: yes, no"),
     (Fixed("Ask."), "exactly this text: Ask.")],
)  # fmt: skip
def test_the_prompt_says_the_bounds(kind: Kind, said: str) -> None:
    assert kind.describe() == said


@pytest.mark.parametrize("bounds", [(0, 5), (6, 5), (1, 10_001), (1, 10**30)])
def test_bounds_that_nobody_can_keep_are_refused(bounds: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 <= min <= max <= 10000"):
        Prose(*bounds)


def test_every_kind_owns_its_whole_syntax() -> None:
    parts = ("write", "read", "describe", "json_schema", "gbnf", "block", "marks", "missing")
    assert [(name, part) for name, kind in KINDS.items() for part in parts if not hasattr(kind, part)] == []


@pytest.mark.parametrize("text", ["", "two\nlines", "a\x08b", "a\x7fb", "a\x80", " edge", 5])
def test_a_config_text_is_one_plain_line(text: Any) -> None:
    with pytest.raises(ValueError):
        plain_line(text)


def test_literals_escape_quotes_and_backslashes() -> None:
    assert literal('say "x" \\ y\n') == r'"say \"x\" \\ y\n"'

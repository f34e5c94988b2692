"""What counts as the same quantity, and what an answer invents."""

from __future__ import annotations

import pytest

from plumbing.wording import invented, quantities

STATED = {
    "decimals": ("pH below 7.35.", {"7.35"}),
    "a trailing nought": ("7.0", {"7"}),
    "a sign": ("a T-score of -2.5 or lower", {"-2.5"}),
    "thousands": ("1,500 mL", {"1500 ml"}),
    "no thousands": ("2,3-bisphosphoglycerate", {"2", "3"}),
    "percent": ("5%", {"5 %"}),
    "percent in words": ("five percent", {"5 %"}),
    "a range": ("18.5 to 24.9", {"18.5", "24.9", "18.5-24.9"}),
    "a range with a dash and a unit": ("3–5 days", {"3 day", "5 day", "3-5"}),
    "a range between": ("between 60 and 100 beats per minute", {"60 beat/minute", "100 beat/minute", "60-100"}),
    "no range": ("types 1 and 2", {"1", "2"}),
    "a glued unit": ("a 3cm aneurysm", {"3 cm"}),
    "a compound unit": ("7 g/dL", {"7 g/dl"}),
    "a spelled unit": ("100 millimeters", {"100 mm"}),
    "two spellings of one unit": ("60 bpm", {"60 beat/minute"}),
    "micro": ("5 µg", {"5 mcg"}),
    "number words": ("two kidneys, a dozen", {"2", "12"}),
    "Roman numerals": ("factor VIII and angiotensin II", {"8", "2"}),
    "names with a digit": ("CD4, B12, HbA1c", {"cd4", "b12", "hba1c"}),
    "a number behind a hyphen": ("interleukin-6", {"6"}),
    "a superscript": ("kg/m²", {"m2"}),
    "ordinary words": ("one of the first, a second opinion, I", set()),
}


@pytest.mark.parametrize(("text", "wanted"), STATED.values(), ids=STATED)
def test_quantities(text: str, wanted: set[str]) -> None:
    assert quantities(text) == wanted


@pytest.mark.parametrize(
    ("text", "source", "wanted"),
    [
        ("It lasts 3 days.", "It lasts three days.", []),
        ("It lasts 3.", "It lasts three days.", []),
        ("It lasts 3 weeks.", "It lasts three days.", ["3 week"]),
        ("In 5% of cases.", "In 5 cases.", ["5 %"]),
        ("From 60 to 100.", "Below 60 it is slow, above 100 fast.", ["60-100"]),
        ("CD8 cells fall.", "CD4 cells fall.", ["cd8"]),
        ("Half of them.", "Some of them.", ["0.5"]),
        ("about 7,35", "about 7.35", ["35", "7"]),
        ("about 2.5", "about -2.5", ["2.5"]),
        ("", "7", []),
    ],
)
def test_invented(text: str, source: str, wanted: list[str]) -> None:
    assert invented(text, source) == wanted

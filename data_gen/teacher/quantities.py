"""Text -> the quantities that it states, spelled one way: digits, decimals, percentages, ranges, number words, units.

Two texts that state the same have the same quantities, so what an answer invents is `quantities(answer)` less the
source's.  A number behind which a unit stands counts with the unit: 5 mg is not 5 mL.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal

# "one" and the ordinals are ordinary words ("one of the", "first"); I, V and X are letters.
_NUMBERS = {
    "0": "zero", "0.25": "quarter quarters", "0.5": "half", "2": "two twice II", "3": "three III", "4": "four IV",
    "5": "five", "6": "six VI", "7": "seven VII", "8": "eight VIII", "9": "nine IX", "10": "ten", "11": "eleven XI",
    "12": "twelve dozen dozens XII", "13": "thirteen XIII", "14": "fourteen", "15": "fifteen", "16": "sixteen",
    "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty", "30": "thirty", "40": "forty",
    "50": "fifty", "60": "sixty", "70": "seventy", "80": "eighty", "90": "ninety", "100": "hundred hundreds",
    "1000": "thousand thousands", "1000000": "million millions", "1000000000": "billion billions",
}  # fmt: skip
_SPELLED = {spelled: number for number, spellings in _NUMBERS.items() for spelled in spellings.split()}
_UNITS = {
    "%": "% percent", "second": "s sec secs second seconds", "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours", "day": "day days", "week": "week weeks", "month": "month months",
    "year": "year years yr yrs", "ng": "ng nanogram nanograms", "mcg": "mcg ug μg microgram micrograms",
    "mg": "mg milligram milligrams", "g": "g gram grams", "kg": "kg kilogram kilograms",
    "nm": "nm nanometer nanometers", "um": "um μm micrometer micrometers micron microns",
    "mm": "mm millimeter millimeters", "cm": "cm centimeter centimeters", "m": "m meter meters",
    "ml": "ml milliliter milliliters", "dl": "dl deciliter deciliters", "l": "l liter liters",
    "mmol": "mmol millimole millimoles", "mol": "mol mole moles", "meq": "meq milliequivalent milliequivalents",
    "unit": "u iu unit units", "mmhg": "mmhg", "kpa": "kpa", "degree": "°c °f ° degree degrees",
    "beat": "beat beats", "breath": "breath breaths", "tablet": "tablet tablets capsule capsules",
    "time": "time times fold",
}  # fmt: skip
_UNIT = {spelled: unit for unit, spellings in _UNITS.items() for spelled in spellings.split()}
_SAME = {"per cent": "percent", "mm hg": "mmhg", "bpm": "beats per minute"}
_UNIT_PATTERN = "|".join(map(re.escape, sorted(_UNIT, key=len, reverse=True)))

# A number: digits with decimals, a sign where no word and no other number stands before it.
_NUMBER = re.compile(r"(?:(?<![\w)-])-)?(?<![\w.])\d+(?:\.\d+)?")
_BEHIND = re.compile(rf"[ -]?({_UNIT_PATTERN})(?![a-z])(?: ?(?:/|per|an?) ?({_UNIT_PATTERN})(?![a-z]))?", re.IGNORECASE)
_NAME = re.compile(r"(?=[^\W_]*\d)(?=[^\W_]*[^\W\d_])[^\W_]+")  # letters and digits in one: CD4, B12, 99m
_RANGE = re.compile(r"\s*(?:-|to)\s*$")


def quantities(text: str) -> frozenset[str]:
    """Every number, number with its unit, range, and name with a digit in it.

    >>> sorted(quantities("Two kidneys filter 1,500 mL; CD4 counts fall by 5-10 percent."))
    ['10 %', '1500 ml', '2', '5 %', '5-10', 'cd4']
    """
    text = _plain(text)
    found: list[str] = []
    last: tuple[str, str, int] | None = None  # the number before, its unit, where it ended
    for value, start, end in _numbers(text):
        unit, behind = _unit(text, end)
        if last and _joins(text, last, start):
            if not last[1] and unit:
                found[-1] = f"{last[0]} {unit}"  # 5-10 percent: the five are percent too
            found.append(f"{last[0]}-{value}")
        found.append(f"{value} {unit}".strip())
        last = (value, unit, behind)
    names = (match.group().lower() for match in _NAME.finditer(text) if not _glued(match.group()))
    return frozenset([*found, *names])


def invented(text: str, source: str) -> list[str]:
    """What `text` states and `source` does not.  A source's number may be told without its unit.

    >>> invented("about 5 mL in 3 days", "5 mg a day, for 3 days"), invented("the 5", "5 mg")
    (['5 ml'], [])
    """
    held = quantities(source)
    return sorted(quantities(text) - held - {quantity.partition(" ")[0] for quantity in held})


def _plain(text: str) -> str:
    """One spelling of signs, thousands and number words: 1,500 -> 1500, m² -> m2, VIII -> 8, three -> 3."""
    text = re.sub(r"[‐-―−]", "-", unicodedata.normalize("NFKC", text))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    for spelling, same in _SAME.items():
        text = re.sub(rf"\b{spelling}\b", same, text, flags=re.IGNORECASE)
    return re.sub(r"\b[A-Za-z]+\b", lambda match: _digits(match.group()), text)


def _digits(word: str) -> str:
    return _SPELLED.get(word) or _SPELLED.get(word.lower(), word)


def _numbers(text: str) -> Iterator[tuple[str, int, int]]:
    """Value as it is compared (7.0 is 7), start and end of each number that is no part of a name."""
    for match in _NUMBER.finditer(text):
        word = re.match(r"[^\W\d_]+", text[match.end() :])
        if not word or word.group().lower() in _UNIT:
            yield f"{Decimal(match.group()).normalize():f}", match.start(), match.end()


def _glued(name: str) -> bool:
    """Whether it is a number with its unit, as in 5mg, and no name."""
    match = re.fullmatch(r"\d+([^\W\d_]+)", name)
    return match is not None and match.group(1).lower() in _UNIT


def _unit(text: str, end: int) -> tuple[str, int]:
    """The unit behind a number, "" for none, and where it ends."""
    match = _BEHIND.match(text, end)
    if not match:
        return "", end
    return "/".join(_UNIT[part.lower()] for part in match.groups() if part), match.end()


def _joins(text: str, last: tuple[str, str, int], start: int) -> bool:
    """Whether two numbers are the ends of a range: 5-10, 5 to 10, between 5 and 10."""
    link = text[last[2] : start]
    if link.strip() == "and":
        before = text[: last[2]].rpartition("between")
        return bool(before[1]) and before[2].strip().startswith(last[0])
    return _RANGE.fullmatch(link) is not None

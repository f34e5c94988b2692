"""Text -> its words, names and numbers, each in one normal spelling."""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

_PHRASE = re.compile(r"[.,:;!?()\"\n]+")
_WORD = re.compile(r"[^\W_]+|\+")  # the plus sign tells CD4+ from CD4
_POSSESSIVE = re.compile(r"['\u2019]s\b", re.IGNORECASE)  # Alzheimer's disease is Alzheimer disease
# The first ending that fits.  A rule need not give a real word, it must only make both forms meet: "diagnosis" and
# "diagnoses" end in -se here, as "disease" and "diseases" do.
_ENDINGS = [
    (re.compile(ending), single)
    for ending, single in (
        (r"(?<=\w\w)ies$", "y"),  # arteries
        (r"(ss|x|ch|sh|z)es?$", r"\1"),  # abscesses, reflexes, headache
        (r"(?<=[^ao])uses$", "us"),  # viruses
        (r"s[ei]s$", "se"),  # diagnoses, diagnosis, diseases
        (r"ours?$", "or"),  # tumour
        (r"(?<=[^sui])s$", ""),  # cells, but not abscess, virus, pelvis
        (r"ae$", "a"),  # vertebrae
        (r"um$", "a"),  # bacterium
        (r"(?<=\w{4})i$", "us"),  # bronchi
    )
]
_BRITISH = re.compile(r"[ao]e(?=\w)")  # oedema, anaemia


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a value, which may be a text, a list or a dict of them.

    >>> list(texts_of(["a", {"Q": "b", "A": "c"}]))
    ['a', 'b', 'c']
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)


def shorten(text: str, length: int = 300) -> str:
    """The beginning of a text, encodable as UTF-8."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= length else whole[: length - 3] + "..."


def plain(text: str) -> str:
    """Only the words, in small letters, with one blank between them.

    >>> plain("**What** is  a SJÖGREN'S?")
    'what is a sjogren s'
    """
    if not text.isascii():  # compatibility forms become plain ones; no accents, no soft hyphens or zero-width blanks
        split = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in split if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return " ".join(_WORD.findall(text.casefold()))


_plain_phrase = functools.lru_cache(maxsize=1 << 16)(plain)  # rows share most of their phrases


def phrases(text: str) -> list[str]:
    """The plain phrases between the punctuation marks of a text.

    >>> phrases("**Definition**: In short, an Abscess is pus.")
    ['definition', 'in short', 'an abscess is pus']
    """
    return [words for part in _PHRASE.split(text) if (words := _plain_phrase(part))]


@functools.lru_cache(maxsize=1 << 16)
def singular(word: str) -> str:
    """A plain word without the marks of plural and of British spelling; words of under four letters stay.

    >>> [singular(word) for word in ("abscesses", "diagnoses", "vertebrae", "anaemias", "tumours", "virus", "pus")]
    ['abscess', 'diagnose', 'vertebra', 'anemia', 'tumor', 'virus', 'pus']
    """
    if len(word) < 4:
        return word
    for ending, single in _ENDINGS:
        changed, found = ending.subn(single, word)
        if found:
            word = changed
            break
    return _BRITISH.sub("e", word) if len(word) > 4 else word


def singular_words(text: str) -> str:
    """
    >>> singular_words("What are Crohn's diseases?")
    'what are crohn disease'
    """
    return " ".join(singular(word) for word in plain(_POSSESSIVE.sub("", text)).split())


@functools.lru_cache(maxsize=1 << 16)
def name_key(name: str) -> str:
    """What two spellings of one name have in common; blanks do not count.

    >>> name_key("X-rays") == name_key("x ray") == name_key("Xray")
    True
    """
    return singular_words(name).replace(" ", "")


def mentions(text: str, concept: str) -> bool:
    """Whether `text` names the concept as whole words: in any case, with a regular plural, with a hyphen for a space.

    >>> mentions("Biopsies take a piece of tissue.", "biopsy"), mentions("An atriumlike part", "atrium")
    (True, False)
    """
    return _naming(concept).search(text) is not None


@functools.lru_cache(maxsize=4096)
def _naming(concept: str) -> re.Pattern[str]:
    name = r"[\s-]+".join(re.escape(word) for word in re.split(r"[\s-]+", concept))
    name = name[:-1] + "(?:ys?|ies)" if name.endswith("y") else name + "(?:e?s)?"
    return re.compile(rf"(?<!\w){name}(?!\w)", re.IGNORECASE)


def has_keyword(text: str, keyword: str) -> bool:
    """Whether a word of `text` begins with the keyword, in any case: `clot` is found in "Clotting"."""
    return re.search(rf"(?<!\w){re.escape(keyword)}", text, re.IGNORECASE) is not None


# Numbers are read in two ways.  A teacher's answer can be asked for again, so `quantities` reads strictly: units,
# ranges, number words and names with digits must all agree.  The judge's figures are final, so `numbers` compares only
# sizes and percentages in digits: a correct answer must not lose points for a unit or a number word.

_SPELLINGS = tomllib.loads(Path(__file__).with_name("quantities.toml").read_text(encoding="utf-8"))
_DIGITS, _UNIT = (
    {spelled: one for one, spellings in _SPELLINGS[name].items() for spelled in spellings.split()}
    for name in ("numbers", "units")
)
_SAME = {"per cent": "percent", "mm hg": "mmhg", "bpm": "beats per minute"}
_UNIT_PATTERN = "|".join(map(re.escape, sorted(_UNIT, key=len, reverse=True)))
# A number: digits with decimals, a sign only if no word and no other number precedes it.
_QUANTITY = re.compile(r"(?:(?<![\w)-])-)?(?<![\w.])\d+(?:\.\d+)?")
_BEHIND = re.compile(rf"[ -]?({_UNIT_PATTERN})(?![a-z])(?: ?(?:/|per|an?) ?({_UNIT_PATTERN})(?![a-z]))?", re.IGNORECASE)
_CODE = re.compile(r"(?=[^\W_]*\d)(?=[^\W_]*[^\W\d_])[^\W_]+")  # letters and digits in one: CD4, B12, 99m


def quantities(text: str) -> frozenset[str]:
    """Every number, number with its unit, range, and name with a digit in it, each in one spelling.

    >>> sorted(quantities("Two kidneys filter 1,500 mL; CD4 counts fall by 5-10 percent."))
    ['10 %', '1500 ml', '2', '5 %', '5-10', 'cd4']
    """
    text = re.sub(r"[‐-―−]", "-", unicodedata.normalize("NFKC", text))  # m² -> m2, VIII in one character -> VIII
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    for spelling, same in _SAME.items():
        text = re.sub(rf"\b{spelling}\b", same, text, flags=re.IGNORECASE)
    text = re.sub(r"\b[A-Za-z]+\b", lambda m: _DIGITS.get(m[0]) or _DIGITS.get(m[0].lower(), m[0]), text)
    found: list[str] = []
    last: tuple[str, str, int] | None = None  # the number before, its unit, where it ended
    for match in _QUANTITY.finditer(text):
        word = re.match(r"[^\W\d_]+", text[match.end() :])
        if word and word[0].lower() not in _UNIT:
            continue  # part of a name
        value, behind = f"{Decimal(match[0]).normalize():f}", _BEHIND.match(text, match.end())  # 7.0 is 7
        unit = "/".join(_UNIT[part.lower()] for part in behind.groups() if part) if behind else ""
        if last and _joins(text, last, match.start()):
            if not last[1] and unit:
                found[-1] = f"{last[0]} {unit}"  # 5-10 percent: the five are percent too
            found.append(f"{last[0]}-{value}")
        found.append(f"{value} {unit}".strip())
        last = (value, unit, behind.end() if behind else match.end())
    codes = (match[0].lower() for match in _CODE.finditer(text))
    return frozenset([*found, *(code for code in codes if code.lstrip("0123456789") not in _UNIT)])  # 5mg is not a name


def invented(text: str, source: str) -> list[str]:
    """The quantities of `text` that `source` does not hold.  A number of the source counts without its unit too.

    >>> invented("about 5 mL in 3 days", "5 mg a day, for 3 days"), invented("the 5", "5 mg")
    (['5 ml'], [])
    """
    held = quantities(source)
    return sorted(quantities(text) - held - {quantity.partition(" ")[0] for quantity in held})


def _joins(text: str, last: tuple[str, str, int], start: int) -> bool:
    """Whether two numbers are the ends of a range: 5-10, 5 to 10, between 5 and 10."""
    link = text[last[2] : start].strip()
    before = text[: last[2]].rpartition("between")
    return link in ("-", "to") or (link == "and" and bool(before[1]) and before[2].strip().startswith(last[0]))


_SPELLED = ["zero", "one", *(_SPELLINGS["numbers"][str(n)].partition(" ")[0] for n in range(2, 21))]
_PERCENT = r"\s?(?:%|per\s?cent\b)"
# A name comes first, so that its digits are not a number of their own: B12, IL-6, COVID-19.  Letters behind a number are
# its unit: 5mg, 2nd.  Thousands may be separated by a comma or by one of four spaces.
_NUMBER = re.compile(
    r"[^\W\d_]\w*(?:-\w+)*"
    r"|(?<![\w.])(?P<digits>(?:\d{1,3}(?:[, \u00a0\u2009\u202f]\d{3})+(?!\d)|\d+)(?:[.·]\d+)?|\.\d+)"
    rf"(?:(?P<percent>{_PERCENT})|[^\W\d_]*)",
    re.IGNORECASE,
)
_WORD_NUMBER = re.compile(rf"\b({'|'.join(_SPELLED)})\b({_PERCENT})?", re.IGNORECASE)
Number = tuple[Decimal, bool]  # its size, and whether it is a percentage


def numbers(text: str) -> list[Number]:
    """Every number written in digits, in order.

    >>> [str(size) for size, _ in numbers("From 1,500 mg/m2 to .5 or 20/40 for IL-6.")]
    ['1500', '0.5', '20', '40']
    """
    return [number for number, _ in _numbers(text)]


def _numbers(text: str) -> Iterator[tuple[Number, str]]:
    """Each number and how it is written."""
    matches = [match for match in _NUMBER.finditer(text) if match["digits"]]
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        percent = match["percent"] is not None
        if not percent and following and following["percent"]:  # the first end of a range is what the second is: 5-10 %
            joint = text[match.end() : following.start()].strip().lower()
            between = joint == "and" and text[: match.start()].rstrip().lower().endswith("between")
            percent = between or joint in ("-", "–", "—", "to")
        size = Decimal(re.sub(r"[,\s]", "", match["digits"]).replace("·", "."))
        yield (size, percent), match["digits"] + (" %" if match["percent"] else "")


def unsupported_numbers(prose: str, sources: Iterable[str]) -> tuple[str, ...]:
    """The numbers of `prose` that are in none of `sources`, as written, each once.

    Compared by size: 1,000 is 1000 and 2.50 is 2.5, but 5 % is not 5.  Both ends of a range count; a sign and a unit do
    not.  A source may spell out a number up to twenty; one that `prose` spells out is not read.

    >>> unsupported_numbers("About 12,000 of 5 to 10 % in B12.", ["12 000 people", "ten percent of five"])
    ('5',)
    """
    known: set[Number] = set()
    for source in sources:
        known.update(numbers(source))
        for match in _WORD_NUMBER.finditer(source):
            known.add((Decimal(_SPELLED.index(match[1].lower())), match[2] is not None))
    written: dict[Number, str] = {}
    for number, text in _numbers(prose):
        written.setdefault(number, text)
    return tuple(text for number, text in written.items() if number not in known)

"""A text or a name -> the one spelling that all its spellings share: case, accents, blanks, punctuation, plural."""

from __future__ import annotations

import functools
import re
import unicodedata

_PHRASE = re.compile(r"[.,:;!?()\"\n]+")
_WORD = re.compile(r"[^\W_]+|\+")  # the plus sign tells CD4+ from CD4
_POSSESSIVE = re.compile(r"['\u2019]s\b", re.IGNORECASE)  # Alzheimer's disease is Alzheimer disease
# The first ending that fits.  A rule need not give a real word, only make both forms meet: "diagnosis" and "diagnoses"
# end in -se here, as "disease" and "diseases" do.
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


def plain(text: str) -> str:
    """The words alone, in small letters, one blank between them.

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
    """What two spellings of one name have in common: not even the blanks count.

    >>> name_key("X-rays") == name_key("x ray") == name_key("Xray")
    True
    """
    return singular_words(name).replace(" ", "")

"""One text, or one fact's parsed row -> the faults of its wording as (rule, "what was found; cure").

data_gen/lint_rules.toml holds the table of the rules.  Texts are expected to be English.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from plumbing.wording import has_keyword, singular_words

Found = tuple[str, str]  # rule, "what was found; cure"

# Words of each text.  The three together with the note of 14 words make an answer of about 100 to 150 words.
BANDS = {"definition": (8, 45), "mechanism": (25, 60), "clinical": (25, 60)}
TOGETHER = (80, 130)
SENTENCES = {"definition": (1, 2), "mechanism": (2, 4), "clinical": (2, 4)}
KEYWORDS = (3, 8)
OWN_WORDS = 3  # words of a definition beyond the concept, its kind and the empty words; good ones have 4 and more

# Kinds of concepts: naming the kind is not enough for a definition.
_SORTS = """abbreviation category class complaint concept condition diagnosis disease disorder examination exam finding
form group illness instrument kind measurement name organ part problem procedure process sign something state structure
substance symptom syndrome system technique term test thing tissue treatment type word"""
_EMPTY = """a abnormal abnormality all also an and another any are as at be body by called can care chemical clinical
common diagnostic doctor for from have health human in is it its known laboratory may mean medical medicine of on one or
other patient people person refer short some stand such that the these this to use usually various very when where which
who with"""

# Never spelled out: DNA and RNA are better known than their long names; the others are letters without long names:
# blood groups, chromosomes, waves of the electrocardiogram.  Names with a digit (CD4, BRCA1) pass too.
_NAMES = {"DNA", "RNA", "ABO", "AB", "XX", "XY", "QRS", "QT", "ST"}
_NUMERAL = re.compile(r"X{0,3}(?:IX|IV|V?I{0,3})")
# Before IV, which is 4 then.
_NUMBERED = re.compile(r"\b(?:(?:type|stage|class|grade|factor|nerve|phase|collagen)s?|and|or|to|[IVX]+,) $")

_UNIT = r"(?:mg|mcg|g|ml|iu|(?:milli|micro)?grams?|millilit(?:er|re)s?|units?|tablets?|capsules?|drops?|puffs?)"
_TIME = r"(?:kg|kilogram|day|dose|(?:\d+ )?hours?|week|night)\b"
_DOSE = re.compile(
    rf"\b\d[\d.,]* ?{_UNIT} (?:orally|by mouth|intravenously|daily|once|twice)\b"
    r"|\b(?:once|twice|(?:three|four|\d) times) (?:daily|(?:a|per|each|every) day)\b"
    rf"|\b(?:take|give|swallow) (?:\w+ )?(?:\d[\d.,]*|one|two|three|half) ?{_UNIT}\b"
    rf"|\bdoses? of (?:\w+ )?\d[\d.,]* ?{_UNIT}\b",
    re.I,
)
_AMOUNT = re.compile(rf"\b\d[\d.,]* ?{_UNIT}(?: of \w+)? ?(?:/|per|an?|each|every|in a) ?{_TIME}", re.I)
_BODY = re.compile(r"urin|excret|output|secret|produc|filter|intake|loss|lose|protein|albumin", re.I)  # then no dose
_ADVICE = re.compile(
    r"\byou(?:rs?|rself)?\b|\bplease\b"
    r"|\b(?:consult|ask|call|contact|visit|see|(?:talk|speak) (?:to|with)) (?:an?|the) "
    r"(?:\w+ )?(?:doctor|physician|pharmacist|clinician|nurse|health ?care \w+)\b"
    r"|\bseek (?!to )(?:\w+ )?(?:help|advice|care|attention)\b",
    re.I,
)
_PERCENT = re.compile(r"\b(?:\d[\d.,]*|one|two|three|five|ten|\w+ty) ?(?:%|per ?cent\b)", re.I)

# a/an goes by sound, not by letter.
_AN = re.compile(
    r"(?!eu|ew[ei]|uni(?!de|m[mp]|n(?!u))|us[eu]|ut[eio]|ur[aeio]|ubi|uv|one\b|once\b)[aeiou]"
    r"|hour|honest|honor|heir|8|11(?!\d)|18(?!\d)",
    re.I,
)
_EITHER = re.compile(  # pronounced in two ways: an herb, FISH and SOX2 as words, HbA1c
    r"herb|histor|[A-Z][a-z]+[A-Z]|REM\b|(?=[A-Z0-9]*[AEIOU])[FHLMNRSUX][A-Z0-9]{3}"
)
# Pronounced letter by letter: MRI, Hb, mRNA, x-ray.
_LETTER = re.compile(r"[A-Z](?:[bcdfghj-np-tvwxz]\b|(?![a-z]))|[a-z]{1,2}[A-Z]|[a-z]\b")
_ARTICLE = re.compile(r"(?<![\w'-])(an?|(?:^|(?<=[.?!:] ))An?) (?!(?:an?|and|is|or|the) )([A-Za-z0-9]+)")
_DOUBLED = re.compile(r"(?<![\w-])(?!had\b|that\b)([a-z]+) \1(?![\w-])", re.I)
_SEAMS = re.compile(
    r"\{\w*\}"  # an unfilled template field
    r"|\b(?:an? the|a an|an a|the an)\b"  # two articles
    r"| [,.;:?!)](?!\d)|[(] |(?<!\.)\.\.(?!\.)|[,;:][.,;:]"  # a blank or a mark too many
    r"|[a-z]{2}[.?!][A-Z][a-z]|[a-z][,;][a-z]"  # a blank too few
)
_NEXT = re.compile(r"(?<=[.?!])[\"')]* (?=[\"'(]?[A-Z0-9])")  # between two sentences
_LOWER = re.compile(r"(?:^|(?<!\b[A-Z])(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)[.?!] )([a-z]+)(?![\w])")


def text_faults(text: str) -> Iterator[Found]:
    """The faults that any text can have, a name as well as a paragraph."""
    yield from character_faults(text)
    for found in _DOUBLED.finditer(text):
        yield "seam", f"'{found[0]}': a doubled word; keep one"
    for found in _SEAMS.finditer(text):
        around = text[max(0, found.start() - 10) : found.end() + 10]
        yield "seam", f"'{found[0]}' in '{around}': a seam; close it"
    for found in _ARTICLE.finditer(text):
        article = _article(found[2])
        if article not in ("", found[1].lower()):
            yield "article", f"'{found[0]}'; write '{article} {found[2]}'"
    yield from _bracket_faults(text)


def character_faults(text: str) -> Iterator[Found]:
    """Characters that look like others, and misplaced blanks.

    Accents are allowed (a name keeps its spelling: Sjögren), composed ones only, so that a text has one spelling.

    >>> list(character_faults("the patient’s leg"))
    [('characters', 'U+2019 RIGHT SINGLE QUOTATION MARK; write it in ASCII')]
    """
    if text != text.strip() or re.search(r"\s\s|[\t\n\r]", text):
        found = "a space at an end, two in a row, a tab or a new line"
        yield "blanks", f"'{text.strip()[:30]}': {found}; write single spaces"
    for char in dict.fromkeys(text):
        if _is_look_alike(char):
            yield "characters", f"U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}; write it in ASCII"
    if not unicodedata.is_normalized("NFC", text):
        yield "characters", "an accent separate from its letter; write the text in the form NFC"
    latin = sum("LATIN" in unicodedata.name(char, "") for char in text)
    for word in re.findall(r"[^\W\d_]+", text):
        scripts = {unicodedata.name(char, "").partition(" ")[0] for char in word}
        mixed = "LATIN" in scripts and scripts & {"GREEK", "CYRILLIC", "MICRO"}
        if mixed or ("CYRILLIC" in scripts and latin > len(text) / 2):
            yield "characters", f"{word!a} has letters of {' and '.join(sorted(scripts))}; write Latin ones"


def teaching_faults(row: dict[str, Any]) -> Iterator[Found]:
    """The faults of one fact's definition, mechanism, clinical text and keywords; other types are left to other rules."""
    texts = {name: row[name] for name in BANDS if isinstance(row.get(name), str)}
    aliases = row["aliases"] if isinstance(row.get("aliases"), list) else []
    names = [row.get("concept"), row.get("expansion"), *aliases]
    named = [name for name in names if isinstance(name, str) and name]
    if "definition" in texts and row.get("concept"):
        yield from _definition_faults(texts["definition"], named, row.get("expansion"))
    for name, text in texts.items():
        faults = itertools.chain(_sentence_faults(name, text), _banned(text, bool(row.get("sources"))))
        yield from ((rule, f"'{name}': {found}") for rule, found in faults)
    whole = " ".join(texts.values())
    own = set(re.findall(r"[A-Z]{2,}", " ".join([*named, str(row.get("same_as"))])))
    yield from _abbreviation_faults(whole, own)
    if len(texts) < len(BANDS):
        return  # a text is missing, so the whole cannot be judged
    if not TOGETHER[0] <= len(whole.split()) <= TOGETHER[1]:
        yield "length", f"words of the three texts: {len(whole.split())}; expected {TOGETHER[0]} to {TOGETHER[1]}"
    if isinstance(row.get("keywords"), list):
        yield from _keyword_faults([str(word) for word in row["keywords"]], whole)


def sentences(text: str) -> list[str]:
    """
    >>> sentences("E. coli is one. The Gram stain shows it.")
    ['E. coli is one.', 'The Gram stain shows it.']
    """
    return _NEXT.split(text)


def _definition_faults(text: str, names: list[str], expansion: Any) -> Iterator[Found]:
    words = singular_words(text)
    if not any(f" {singular_words(name)} " in f" {words} " for name in names):
        yield "unnamed", f"the definition names none of: {', '.join(names)}; name the concept"
    if isinstance(expansion, str) and expansion and f" {singular_words(expansion)} " not in f" {words} ":
        yield "expansion", f"the definition does not hold '{expansion}'; spell the abbreviation out there"
    given = set(singular_words(" ".join([*names, _EMPTY])).split())
    sorts = set(singular_words(_SORTS).split())
    first = sentences(text)[0]
    if (rest := set(singular_words(first).split()) - given) and rest <= sorts:
        yield "category-only", f"'{first}' says only what kind it is; say how it differs"
        return
    own = [word for word in dict.fromkeys(words.split()) if word not in given]
    sort = next((word for word in own if word in sorts), None)
    own = [word for word in own if word != sort]
    if len(own) < OWN_WORDS:
        yield "repeats-term", f"the definition says only {', '.join(own) or 'nothing'} beyond the term; say what it is"


def _sentence_faults(name: str, text: str) -> Iterator[Found]:
    for what, count, (least, most) in (
        ("words", len(text.split()), BANDS[name]),
        ("sentences", len(sentences(text)), SENTENCES[name]),
    ):
        if not least <= count <= most:
            yield "length", f"{what}: {count}; expected {least} to {most}"
    if not re.search(r"[.?!][\"')]*\s*$", text):
        yield "sentence", f"ends in '{text[-20:]}'; end the sentence with a full stop"
    for found in _LOWER.finditer(text):
        yield "sentence", f"'{found[1]}' begins a sentence; write its first letter as a capital"


def _banned(text: str, sourced: bool) -> Iterator[Found]:
    for sentence in sentences(text):
        dose, amount = _DOSE.search(sentence), _AMOUNT.search(sentence)
        if amount and not _BODY.search(sentence[: amount.end()]):
            dose = amount
        if dose:
            yield "dosing", f"'{dose[0]}' is a dose; leave doses out"
    for found in _ADVICE.finditer(text):
        yield "advice", f"'{found[0]}' advises a person; write a general statement"
    if not sourced and (found := _PERCENT.search(text)):
        yield "percentage", f"'{found[0]}' in a fact without sources; name the source, or write it without the figure"


def _abbreviation_faults(text: str, own: set[str]) -> Iterator[Found]:
    seen = own | _NAMES
    for found in re.finditer(r"\b([A-Z]{2,})(?=s?\b)(?!-?\d)", text):
        token, before, after = found[1], text[: found.start()], text[found.end() :]
        number = _NUMERAL.fullmatch(token) and (token != "IV" or _NUMBERED.search(before))
        if token not in seen and not number and not _is_expanded(token, before, after):
            yield "abbreviation", f"'{token}' is not spelled out at its first use; write 'its long name ({token})'"
        seen.add(token)


def _is_expanded(token: str, before: str, after: str) -> bool:
    """Whether "long name (ABC)", "ABC (long name)" or "ABC, long name," is here."""
    if re.search(r"[a-z0-9] \($", before) and re.match(r"s?(?: ?\d+)?[),;]", after):
        return True
    behind = re.match(r"s? \(([^)]+)\)|s?, ([^,.;]+)[,.;]", after)
    spelled = ((behind[1] or behind[2]) if behind else "").lower()
    letters = iter(spelled)  # the token's letters, in order, from the first letter on
    return spelled[:1] == token[0].lower() and all(letter in letters for letter in token.lower())


def _keyword_faults(keywords: list[str], text: str) -> Iterator[Found]:
    if not KEYWORDS[0] <= len(keywords) <= KEYWORDS[1]:
        yield "keywords", f"keywords: {len(keywords)}; expected {KEYWORDS[0]} to {KEYWORDS[1]}"
    lower = [word.lower() for word in keywords]
    for word in sorted({word for word in lower if lower.count(word) > 1}):
        yield "keywords", f"'{word}' appears twice; keep one"
    for word in keywords:
        if not has_keyword(text, word):  # as the judge looks for it in an answer
            yield "keywords", f"'{word}' begins no word of the fact's texts; use a word that they hold"


def _article(word: str) -> str:
    """The article that `word` takes by its sound; "" if both are right.

    >>> [_article(word) for word in ("ulcer", "urine", "MRI", "CT", "hour", "mRNA", "historic")]
    ['an', 'a', 'an', 'a', 'an', 'an', '']
    """
    if _EITHER.match(word):
        return ""
    vowel = word[0].upper() in "AEFHILMNORSX" if _LETTER.match(word) else _AN.match(word)
    return "an" if vowel else "a"


def _bracket_faults(text: str) -> Iterator[Found]:
    pairs, open_ = {")": "(", "]": "[", "}": "{"}, []
    for char in text:
        if char in pairs.values():
            open_.append(char)
        elif char in pairs and (not open_ or open_.pop() != pairs[char]):
            open_ = [char]
            break
    if open_:
        yield "brackets", f"'{open_[-1]}' has no partner in '{text[:30]}'; close or remove it"


def _is_look_alike(char: str) -> bool:
    """Whether a plain ASCII character looks the same: quotes, dashes, blanks, ligatures, full width, invisible ones."""
    if char.isascii():
        return not char.isprintable() and char not in "\t\n\r"
    kind = unicodedata.category(char)
    alike = kind[0] in "ZC" or kind in ("Pd", "Pi", "Pf") or char in "′″−"
    return alike or unicodedata.normalize("NFKC", char).isascii()

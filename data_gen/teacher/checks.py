"""A teacher's answer -> the row's record, or the reason why it is refused.

The composed row sets the standard: if its record names the concept, holds a keyword or ends with a full stop, the
answer must do so too.  Content is checked only where a machine can: numbers, keywords, names, phrases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from contract.contract import Contract, Record, Section
from contract.example import Example
from contract.kinds import Prose
from data_gen.facts import Fact
from data_gen.teacher.journal import Rejection
from data_gen.teacher.prompt import RULES, TASK, answer_schema, facts, form, taught_sections
from plumbing.wording import invented, mentions, shorten, texts_of

# The closed list.  An answer counts under the first reason that applies; the model gets all of them.
REASONS = {
    "PROMPT_TOO_LONG": "the prompt does not fit into the model's context",
    "LOOPED": "the answer repeated itself without end",
    "CUT": "the answer was cut off before its end",
    "NOT_JSON": "no JSON",
    "SCHEMA": "JSON with other keys or types",
    "FORM": "a section breaks the contract, or ends in the middle of a sentence",
    "MARKUP": "a heading, Markdown, or characters that are not plain text",
    "COPY": "the instructions, the request or the facts word for word, or a sentence twice",
    "NUMBER": "a number, percentage or range that neither fact nor request holds",
    "KEYWORD": "a keyword of the fact is missing",
    "CONCEPT": "the first section of prose does not name the concept",
    "ADVICE": "the reader is addressed, or given advice or a dose",
    "ADDED": "a sentence that shares hardly a word with the facts",
}
COPIED_RUN = 7  # words in a row of the instructions: an answer does not share so many by chance
REQUEST_WORDS = 4  # a request with fewer words beside the concept's name may be in an answer by chance
ADDED_SHARE, ADDED_WORDS = 2 / 3, 4  # of a sentence's words that no fact holds; shorter sentences are not judged
# Words of four letters and more without a meaning of their own; shorter ones are never counted.
_COMMON = """about after also another because been before between both called cause causes during each either every from
have here into make makes many means more most much often only other others over result results same since some such than
that their them then there these they this those through under until upon used uses using usually very well were what
when where whether which while whose will with within without would"""

_MARKS = re.compile(r"\*+|[`|{}\\]+|__+|##+|\]\(|<[A-Za-z/!][^>]*>?|\[/?INST\]")
_MARKED = re.compile(r"^(?:[-•–—#>] ?|\d+[.)] |[a-z]\) )")
_PERSON = r"(?:\w+ ){0,2}(?:doctor|physician|pharmacist|clinician|nurse|provider|professional|specialist)s?"
_ADVICE = re.compile(
    r"\byou(?:r|rs|rself|rselves|'\w+)?\b|\bshould\b|\bought to\b|\bplease\b|\bremember to\b|\b(?:make|be) sure\b"
    rf"|\b(?:consult|ask|call|see|contact|visit|talk to|speak (?:to|with)) (?:an?|the|their)? ?{_PERSON}\b"
    r"|\bseek (?:\w+ ){0,2}(?:help|care|attention|advice|treatment)\b"
    r"|\b(?:is|are) (?:strongly )?(?:recommended|advised|advisable)\b|\bmust (?:not )?(?:be )?(?:take|avoid|stop|use)\w*\b"
    r"|\b(?:do not|don't|never) (?:take|use|stop|ignore|drink|eat)\b"
    r"|\b(?:recommended|usual|typical|maximum|starting|standard) (?:\w+ )?(?:dos(?:e|age)s?)\b"
    r"|\b(?:once|twice|\w+ times) (?:daily|an? (?:day|week)|per (?:day|week)|each day|every day)\b"
    r"|\bevery (?:\w+ )?(?:hours|days)\b"
    r"|\b(?:take|swallow|give|administer) (?:an?|one|two|half|\d+) (?:tablet|capsule|pill|drop|puff|dose|m?c?g\b|ml\b)",
    re.IGNORECASE,
)


def read_answer(contract: Contract, fact: Fact, draft: Example, text: str) -> Record | Rejection:
    """The whole record, composed sections included, or the rejection."""
    try:
        value = tidy(json.loads(text))
    except (ValueError, RecursionError) as error:
        return Rejection("NOT_JSON", f"not JSON: {error}")
    found = next(jsonschema.Draft202012Validator(answer_schema(contract)).iter_errors(value), None)
    if found:
        return Rejection("SCHEMA", f"{'.'.join(map(str, found.path)) or 'the object'}: {found.message[:200]}")
    record = {s.name: value.get(s.name, draft.record[s.name]) for s in contract.sections}
    faults = list(_form(contract, draft, record)) or list(_content(contract, fact, draft, record))
    if not faults:
        return record
    reason = min((reason for reason, _ in faults), key=list(REASONS).index)
    return Rejection(reason, shorten("; ".join(found for _, found in faults), 600))


def tidy(value: Any) -> Any:
    """Single blanks for all white space: a line break in a JSON text has no meaning."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, list):
        return [tidy(item) for item in value]
    return {key: tidy(item) for key, item in value.items()} if isinstance(value, dict) else value


def yardstick(contract: Contract, draft: Example) -> tuple[list[str], Section | None]:
    """What this row's answer must hold: keywords, and the section that must name the concept (None: no section)."""
    text = "\n".join(_texts(contract, draft.record))
    keywords = [keyword for keyword in dict.fromkeys(draft.keywords) if holds(text, keyword)]
    first = next((section for section in taught_sections(contract) if isinstance(section.kind, Prose)), None)
    return keywords, first if first and mentions(str(draft.record[first.name]), draft.concept) else None


def holds(text: str, keyword: str) -> bool:
    """Whether `text` holds the keyword: in any case, with a hyphen for a blank, with regular endings of its words.

    >>> holds("Clotting kidneys", "clot"), holds("a kidney", "kidneys"), holds("a phase", "pH"), holds("CD45", "CD4")
    (True, True, False, False)
    """
    words = r"[\s-]+".join(_ending(word) for word in re.split(r"[\s-]+", keyword.lower()) if word)
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def _ending(word: str) -> str:
    """A pattern of the word with its regular endings; a word with a digit in it has none."""
    if any(char.isdigit() for char in word):
        return re.escape(word)
    stem = word
    for ending, least in (("ing", 4), ("ies", 4), ("ed", 4), ("es", 4), ("s", 3), ("y", 4), ("e", 4)):
        if word.endswith(ending) and not word.endswith(("ss", "us", "is")) and len(word) - len(ending) >= least:
            stem = word.removesuffix(ending)
            break
    return re.escape(stem) + (r"\w{0,4}" if len(stem) > 3 else "(?:e?s)?")


def _texts(contract: Contract, record: Record) -> list[str]:
    return [text for section in taught_sections(contract) for text in texts_of(record[section.name])]


def _form(contract: Contract, draft: Example, record: Record) -> Iterator[tuple[str, str]]:
    """The faults that the contract finds, section by section."""
    whole = True
    for section in taught_sections(contract):
        value = record[section.name]
        try:
            faults = [cls for cls, *_ in section.kind.read(section.kind.write(value))[1]]
        except ValueError as error:
            faults = [str(error)]
        if faults:
            count = f", found {len(value.split())} words" if isinstance(value, str) else ""
            yield "FORM", shorten(f"{section.name}: {', '.join(faults)}: expected {form(section)}{count}", 200)
        elif _is_sentence(draft.record[section.name]) and not _is_sentence(value):
            yield "FORM", f"{section.name}: ends in the middle of a sentence"
        whole = whole and not faults
    if whole and contract.read(contract.write(record)).record != record:
        yield "FORM", "the sections cannot be told apart"


def _is_sentence(value: Any) -> bool:
    return isinstance(value, str) and re.search(r"[.!?][\"')]*$", value) is not None


def _content(contract: Contract, fact: Fact, draft: Example, record: Record) -> Iterator[tuple[str, str]]:
    source = "\n".join([*facts(fact).values(), fact.concept, *fact.keywords, draft.request])
    texts = _texts(contract, record)
    text = "\n".join(texts)
    if markup := sorted({mark for one in texts for mark in _markup(contract, one, source)}):
        yield "MARKUP", f"not plain text: {', '.join(markup)}"
    if copied := _copied(contract, fact, draft, record):
        yield "COPY", copied
    if numbers := invented(text, source):
        yield "NUMBER", f"numbers that the facts do not hold: {', '.join(numbers)}"
    keywords, named = yardstick(contract, draft)
    if missing := [keyword for keyword in keywords if not holds(text, keyword)]:
        yield "KEYWORD", f"missing words: {', '.join(missing)}"
    if named and not mentions(str(record[named.name]), draft.concept):
        yield "CONCEPT", f'{named.name} does not name "{draft.concept}"'
    if advice := {match[0] for match in _ADVICE.finditer(text) if match[0].lower() not in source.lower()}:
        yield "ADVICE", f"addresses the reader or advises: {', '.join(sorted(advice))}"
    if added := next((one for text in texts for one in _sentences(text) if _is_added(one, source)), None):
        yield "ADDED", f'no fact says "{shorten(added, 160)}"'


def _markup(contract: Contract, text: str, source: str) -> Iterator[str]:
    yield from (mark.group() for mark in _MARKS.finditer(text) if mark.group() not in source)
    titles = "|".join(re.escape(section.title) for section in contract.sections)
    for pattern in (_MARKED, re.compile(rf"(?:^|(?<=[.!?] ))(?:{titles}) ?:", re.IGNORECASE)):
        yield from (match.group().strip() for match in pattern.finditer(text))
    yield from (f"U+{ord(char):04X}" for char in text if not char.isprintable() or char == "\ufffd")


def _copied(contract: Contract, fact: Fact, draft: Example, record: Record) -> str:
    """What the record copies instead of answering: the instructions, the request, its own sentence, all the facts."""
    words = [_words(text) for text in _texts(contract, record)]
    instructions = [_words(rule) for rule in (*RULES, TASK, *map(form, taught_sections(contract)))]
    runs = {run for line in instructions for run in _runs(line)}
    if shared := next((run for line in words for run in _runs(line) if run in runs), None):
        return f'repeats the instructions: "{" ".join(shared)}"'
    request = _words(draft.request)
    beside = [word for word in request if word not in _words(draft.concept)]
    if len(beside) >= REQUEST_WORDS and any(f" {' '.join(request)} " in f" {' '.join(line)} " for line in words):
        return "repeats the request"
    sentences = [" ".join(_words(one)) for text in _texts(contract, record) for one in _sentences(text)]
    if twice := next((one for one in sentences if one.count(" ") >= 3 and sentences.count(one) > 1), None):
        return f'repeats itself: "{shorten(twice, 100)}"'
    given = [_words(text) for text in (*facts(fact).values(), *_texts(contract, draft.record))]
    prose = [_words(str(record[s.name])) for s in taught_sections(contract) if isinstance(s.kind, Prose)]
    return "copies the facts word for word" if prose and all(line in given for line in prose) else ""


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) (?=[A-Z])", text)


def _is_added(sentence: str, source: str) -> bool:
    """Whether hardly a word of the sentence comes from the facts, so that the model invented it."""
    stems, held = _stems(sentence), set(_stems(source))
    new = sum(stem not in held for stem in stems)
    return len(stems) >= ADDED_WORDS and new > ADDED_SHARE * len(stems)


def _stems(text: str) -> list[str]:
    """The first five letters of each meaningful word: inflamed, inflammation -> infla."""
    words, common = re.findall(r"[^\W\d_]{4,}", text.lower()), set(_COMMON.split())
    return [word.removesuffix("s")[:5] for word in words if word not in common]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _runs(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + COPIED_RUN]) for i in range(len(words) - COPIED_RUN + 1)}

"""Answer + example -> Content: what an answer says, judged separately from its form.

It is simple on purpose: words and numbers are looked up in the example, nothing is understood.  "Not contagious" covers
the keyword `contagious`, and a true number that the example does not state counts as unsupported.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from contract.contract import Contract, Record
from contract.example import Example
from contract.kinds import Choice, Fixed
from eval.stats.intervals import Rate, wilson
from plumbing.wording import has_keyword, numbers, texts_of, unsupported_numbers

BANDS = {8.0: "grade 8 or below", 12.0: "grades 9 to 12", 16.0: "college", float("inf"): "beyond college"}
GRADED = 20_000  # characters: the syllable counter would need seconds for a very long text without spaces
LONG_WORD = 6  # letters; shorter words of a record are rarely its subject
_LIST_MARK = re.compile(r"^[ \t]*\d{1,2}[.)]\s", re.MULTILINE)


@dataclass(frozen=True)
class Content:
    """`score` is for ranking: covered x supported, halved for a concept not named and for a wrong choice.

    So an answer without any of the key words, such as empty sections or a copy of the request, scores 0.
    """

    named: bool | None  # the first prose section names the requested concept; None when the contract has no prose
    covered: float | None  # share of the key words found; None when neither example nor record has any
    unsupported: tuple[str, ...]  # numbers, as written, that are neither in the record nor in the request
    right: bool | None  # every choice section has the record's option; None when the contract has no choice
    words: int  # without headings and fixed texts
    grade: float | None  # Flesch-Kincaid grade; None when there is not a word
    score: float


@dataclass(frozen=True)
class ContentSummary:
    score: float | None  # mean; None when nothing was judged
    covered: float | None  # mean over the answers to which it applies
    unsupported: Rate  # answers with a number that is not supported
    grade: float | None  # median
    bands: dict[str, int]  # readability band -> answers
    words: float | None  # median


@dataclass(frozen=True)
class ChoiceScore:
    accuracy: Rate
    macro_f1: float | None  # mean over the options that were expected or given; None when nothing was judged
    f1: dict[str, float]  # by option
    unread: int  # answers without one of the options; they count as wrong


def judge_content(contract: Contract, example: Example, text: str, record: Record, named: bool | None) -> Content:
    """`text` is the answer, `record` what was read of it, `named` the verdict's."""
    prose = prose_of(contract, text)
    texts = _own_texts(contract, example.record)
    covered = share_found(prose, key_words(example, texts))
    unsupported = unsupported_numbers(prose, [*texts, example.request])
    choices = [s.name for s in contract.sections if isinstance(s.kind, Choice)]
    right = all(record.get(name) == example.record[name] for name in choices) if choices else None
    score = 1.0 if covered is None else covered
    score *= 1 - len(unsupported) / (len(set(numbers(prose))) or 1)
    score *= (0.5 if named is False else 1) * (0.5 if right is False else 1)
    return Content(named, covered, unsupported, right, len(prose.split()), grade(prose), round(score, 4))


def prose_of(contract: Contract, text: str) -> str:
    """The answer without the contract's headings, fixed texts and list marks."""
    for section in contract.sections:
        if isinstance(section.kind, Fixed):
            text = text.replace(section.kind.text, " ")
        text = re.sub(rf"^{re.escape(contract.head(section))}", " ", text, flags=re.MULTILINE)
    return _LIST_MARK.sub(" ", text).strip()


def _own_texts(contract: Contract, record: Record) -> list[str]:
    """The texts of a record that are neither fixed nor one of a choice's options."""
    return list(texts_of([record[s.name] for s in contract.sections if not isinstance(s.kind, Fixed | Choice)]))


def key_words(example: Example, texts: Sequence[str]) -> list[str]:
    """The example's keywords that are not in the request; if there are none, the long words of the record's `texts`."""
    own = [word for word in example.keywords if not has_keyword(example.request, word)]
    long = dict.fromkeys(word.lower() for text in texts for word in re.findall(rf"[^\W\d_]{{{LONG_WORD},}}", text))
    return own or [word for word in long if not has_keyword(example.request, word)]


def share_found(prose: str, words: Sequence[str]) -> float | None:
    """The share of `words` that `prose` holds, each at the start of a word: `clot` is found in "clotting".

    >>> share_found("Clotting factors rise.", ["clot", "fever"])
    0.5
    """
    return sum(has_keyword(prose, word) for word in words) / len(words) if words else None


def grade(prose: str) -> float | None:
    """The years of US schooling that the text requires (Kincaid et al., 1975), by textstat; needs no network."""
    import textstat

    return round(textstat.flesch_kincaid_grade(prose[:GRADED]), 1) if re.search(r"\w", prose[:GRADED]) else None


def band(years: float) -> str:
    """The readability band of a grade.

    >>> band(8.0), band(11.4)
    ('grade 8 or below', 'grades 9 to 12')
    """
    return next(name for end, name in BANDS.items() if years <= end)


def summarise_content(contents: Sequence[Content]) -> ContentSummary:
    """The means and counts over the judged answers of a run."""
    covered = [content.covered for content in contents if content.covered is not None]
    grades = [content.grade for content in contents if content.grade is not None]
    bands = Counter(band(years) for years in grades)
    return ContentSummary(
        round(fmean(content.score for content in contents), 4) if contents else None,
        round(fmean(covered), 4) if covered else None,
        wilson(sum(bool(content.unsupported) for content in contents), len(contents)),
        median(grades) if grades else None,
        {name: bands[name] for name in BANDS.values() if bands[name]},
        median(content.words for content in contents) if contents else None,
    )


def choice_score(expected: Sequence[str], given: Sequence[str | None], options: Sequence[str]) -> ChoiceScore:
    """Accuracy and macro-F1 of a choice section; `given` is None, or any other text, where no option was read.

    As scikit-learn's f1_score(average="macro", labels=those expected or given): an option has F1 = 2TP / (2TP + FP + FN).

    >>> choice_score(["yes", "yes", "no"], ["yes", "no", None], ["yes", "no", "maybe"]).f1
    {'yes': 0.6666666666666666, 'no': 0.0}
    """
    pairs = list(zip(expected, given, strict=True))
    f1 = {}
    for option in options:
        hits = sum(want == got == option for want, got in pairs)
        named = sum(want == option for want, _ in pairs) + sum(got == option for _, got in pairs)
        if named:
            f1[option] = 2 * hits / named
    accuracy = wilson(sum(want == got for want, got in pairs), len(pairs))
    unread = sum(got not in options for got in given)
    return ChoiceScore(accuracy, fmean(f1.values()) if f1 else None, f1, unread)

"""The page of a report: what it says, what it marks, and that it is safe; test_eval_report_browser.py opens it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from contract.contract import Contract, Violation
from eval.exam.comparison import compare_models, judge_baselines
from eval.exam.temperatures import rates_by_temperature
from eval.judge.answer_row import AnswerRow, with_content
from eval.judge.verdict import judge
from eval.report.page import cut, pieces, to_html
from eval.report.report import Evidence, Report
from eval.report.summarise import summarise
from eval.selftest.clean_examples import generated_example
from models.answers import Answer, failed
from tests.conftest import ROOT
from tests.eval.judge.test_verdict import CLEAN, CONTRACT, EXAMPLE, FAULTS
from tests.strategies import FORMS

EVIL = '<script>alert(1)</script><b onclick="x">&amp;\'</pre>'
ODD = "\n\r\n\x00\x1b[31m\x85\u2028\u202e\ud800 🫀 心臓"
ODD_SHOWN = "\n␍\n␀␛[31m\ufffd\u2028\u202e\ufffd 🫀 心臓"
MORE = {"evil": (EVIL + CLEAN, "stop"), "odd": (ODD + CLEAN, "stop")}
ANSWERS = {"clean": (CLEAN, "stop")} | {name: case[:2] for name, case in FAULTS.items()} | MORE


@dataclass
class Mark:
    numbers: list[int]
    title: str
    expected: str | None
    text: str = ""


@dataclass
class Shown:
    """One <article>."""

    classes: list[str]
    category: str
    hidden: bool
    text: str = ""  # of all of it
    pre: str = ""
    marks: list[Mark] = field(default_factory=list)


class Page(HTMLParser):
    """What a page holds.  A browser drops one line break after <pre>; one that dumps its tree has done so already."""

    def __init__(self, text: str, dumped: bool = False) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.articles: dict[str, Shown] = {}
        self.text, self.open, self.told, self.title = "", [""], "", ""
        self.feed(text)
        for shown in self.articles.values():
            if not dumped:
                assert shown.pre[0] == "\n"
                shown.pre = shown.pre[1:]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.tags.append((tag, of))
        self.text += " " if tag in ("td", "th", "br") else ""
        if tag not in ("meta", "input", "br", "rect"):
            self.open.append(f"{tag}#{of.get('id') or ''}")
        if tag == "article":
            shown = Shown((of["data-classes"] or "").split(), of["data-category"] or "", "hidden" in of)
            self.articles[of["id"] or ""] = shown
        if tag == "mark":
            numbers = [int(n) for n in (of["data-n"] or "").split(",")]
            self.last.marks.append(Mark(numbers, of["title"] or "", of.get("data-expected")))

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1].startswith(f"{tag}#"):
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        tags = [name.partition("#")[0] for name in self.open]
        if "article" in tags:
            self.last.text += data
        if "pre" in tags:
            self.last.pre += data
        if tags[-1] == "mark":
            self.last.marks[-1].text += data
        self.told += data if self.open[-1] == "p#shown" else ""
        self.title += data if self.open[-1] == "title#" else ""

    @property
    def last(self) -> Shown:
        return next(reversed(self.articles.values()))

    @property
    def visible(self) -> list[Shown]:
        return [shown for shown in self.articles.values() if not shown.hidden]


def rows_of(*names: str, contract: Contract = CONTRACT) -> list[AnswerRow]:
    """The named answers; "lost" is one that never came.  Categories take turns."""
    rows = []
    for number, name in enumerate(names):
        example = dataclasses.replace(EXAMPLE, id=f"u/{name}", category=("heart & lung", "kidney")[number % 2])
        answer = failed("transport", f"refused {EVIL}") if name == "lost" else Answer(*ANSWERS[name])
        rows.append(AnswerRow(example, answer, None if answer.error_kind else judge(contract, example, answer)))
    return with_content(contract, rows)


def page_of(rows: Sequence[AnswerRow], settings: dict[str, Any] | None = None, **changes: Any) -> str:
    report = dataclasses.replace(summarise(CONTRACT, "replay", "m", rows, 2.0), **changes)
    return to_html(report, Evidence(rows), settings or {})


def full_page() -> str:
    """Every kind of table and all the answers."""
    rows, base = rows_of(*ANSWERS, "lost"), rows_of(*ANSWERS, "lost")
    base = [
        dataclasses.replace(row, verdict=base[0].verdict) if row.example.id == "u/weak note" else row for row in base
    ]
    hot = [dataclasses.replace(row, temperature=0.7) for row in rows]
    baselines = judge_baselines(CONTRACT, [row.example for row in rows])
    others = [compare_models(name, of, rows, True) for name, of in baselines.items()]
    changes = {
        "others": (compare_models("base", base, rows), *others),
        "ladder": rates_by_temperature([*rows, *hot], 1),
    }
    report = dataclasses.replace(summarise(CONTRACT, "replay", "m", rows, 2.0), **changes)
    return to_html(report, Evidence(rows, hot, {"base": base}), {"digest": "abc", "options": {"stop": ["</s>"]}})


def test_every_failed_answer_stands_there_with_its_spans_marked() -> None:
    names = [*FAULTS, *MORE]
    rows = rows_of("clean", *names)
    shown = Page(page_of(rows)).articles.values()
    assert len(shown) == len(names)
    for row, article in zip(rows[1:], shown, strict=True):
        text, verdict = row.answer.text.replace(ODD, ODD_SHOWN), row.verdict
        assert verdict and article.pre == text and article.classes[0] == verdict.primary
        assert set(article.classes) == {violation.cls for violation in verdict.violations}
        assert row.example.id in article.text and row.example.request in article.text
        for number, v in enumerate(verdict.violations, 1):
            marks = [mark for mark in article.marks if number in mark.numbers]
            assert "".join(mark.text for mark in marks) == text[v.start : v.end]
            assert all(f"{v.cls} in {v.section or 'the whole answer'}" in mark.title.split("; ") for mark in marks)
            if v.start == v.end:
                assert [mark.expected for mark in marks] == [cut(v.found, 80)]


SPANS = {  # spans -> the pieces of "abcdef"
    "none": ([], ["abcdef"]),
    "one": ([(1, 3)], ["a", "bc1", "def"]),
    "the whole": ([(0, 6)], ["abcdef1"]),
    "nested": ([(0, 6), (2, 3)], ["ab1", "c12", "def1"]),
    "overlapping": ([(0, 4), (2, 6)], ["ab1", "cd12", "ef2"]),
    "the same": ([(1, 2), (1, 2)], ["a", "b12", "cdef"]),
    "adjacent": ([(0, 3), (3, 6)], ["abc1", "def2"]),
    "missing": ([(0, 0), (6, 6)], ["1", "abcdef", "2"]),
    "missing within a span": ([(1, 5), (3, 3)], ["a", "bc1", "2", "de1", "f"]),
    "missing where a span ends": ([(0, 6), (6, 6), (6, 6)], ["abcdef1", "2", "3"]),
}


@pytest.mark.parametrize(("spans", "wanted"), SPANS.values(), ids=SPANS)
def test_pieces(spans: list[tuple[int, int]], wanted: list[str]) -> None:
    violations = [Violation("", "TOO_LONG", "abcdef"[a:b], a, b) for a, b in spans]
    assert [p.text + "".join(map(str, p.numbers)) for p in pieces("abcdef", violations)] == wanted


def test_no_text_becomes_markup() -> None:
    rows = rows_of("evil", "lost")
    evil = {name: EVIL for name in ("id", "concept", "category", "request")}
    rows = [dataclasses.replace(row, example=dataclasses.replace(row.example, **evil)) for row in rows]
    page = Page(page_of(rows, {EVIL: {"a": EVIL}}, model=EVIL, backend=EVIL, marked=(EVIL,)))
    assert [tag for tag, _ in page.tags].count("script") == 1 and "b" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.last.category == EVIL and page.last.pre == EVIL + CLEAN and page.text.count(EVIL) > 8


def test_no_text_keeps_the_page_from_being_written(tmp_path: Path) -> None:
    page = page_of(rows_of("odd"), {"odd": ODD}, model=ODD)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    assert not [char for char in page if (ord(char) < 32 and char not in "\t\n") or 0x7F <= ord(char) < 0xA0]


def test_the_page_refers_to_nothing_outside() -> None:
    page = Page(full_page())
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base", "form", "use"}
    for _, attributes in page.tags:
        assert "src" not in attributes and "style" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    inline = full_page().partition("<style>")[2].partition("</style>")[0] + full_page().partition("<script>")[2]
    assert inline and not [word for word in ("url(", "@import", "//", "fetch", "import(") if word in _code(inline)]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = {attributes["href"] for _, attributes in page.tags if "href" in attributes}
    assert len(ids) == len(set(ids)) and links <= {f"#{name}" for name in ids}


def _code(text: str) -> str:
    """Without the script's comments."""
    return "\n".join(line.partition("  //")[0] for line in text.splitlines())


def test_the_same_input_gives_the_same_bytes() -> None:
    code = (
        "import sys; from tests.eval.report.test_page import full_page; sys.stdout.buffer.write(full_page().encode())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}  # sets are in another order there
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert other.stdout == full_page().encode() and len(other.stdout) > 50_000


def test_the_page_tells_the_figures() -> None:
    text = " ".join(Page(full_page()).text.split())
    for said in (
        "1 of 55 judged answers keep the form exactly",
        "Educational, not medical advice.",
        "56 attempted = 55 judged + 1 failed (1 transport)",
        "empty sections baseline 56 100.0 % 93.6 to 100.0",
        "gained: 0", "lost: 1 u/weak note", "not compared, because an answer is missing: 1 u/lost",
        "NOTE_WEAK 1 1.8 % 0.3 to 9.6 2 lacks some words of the fixed text",
        "Answers that show a class, by section class whole answer definition explanation clinical_relevance note",
        "NOTE_WEAK 0 0 0 0 2",
        "the 56 others are in repeats.jsonl",
        'digest abc options {"stop": ["</s>"]}',
    ):  # fmt: skip
        assert said in text, said
    assert f"u/lost transport refused {EVIL} What is uremia?" in text, "the unanswered stand apart"


@pytest.mark.parametrize(
    ("names", "headline", "failures"),
    [
        (["clean"], "100.0 % adherence", "No answer broke a rule."),
        (["clean", "lost"], "100.0 % adherence", "No answer broke a rule."),
        (["lost"], "No answer came", "Nothing was judged."),
    ],
)
def test_a_page_without_failed_answers(names: list[str], headline: str, failures: str) -> None:
    page = Page(page_of(rows_of(*names)))
    text = " ".join(page.text.split())
    assert f"m {headline} " in text and f"Failures {failures} By section" in text and not page.articles
    assert "Temperatures" not in text and ("Unanswered No answer came" in text) == ("lost" in names)


def test_choices_have_their_scores() -> None:
    form = next(form for form in FORMS if any(type(section.kind).__name__ == "Choice" for section in form.sections))
    examples = [dataclasses.replace(generated_example(form, n), id=f"e/{n}") for n in range(6)]
    answers = [Answer(example.response) for example in examples]
    rows = [AnswerRow(e, a, judge(form, e, a)) for e, a in zip(examples, answers, strict=True)]
    report: Report = summarise(form, "replay", "m", rows, 1.0)
    text = " ".join(Page(to_html(report, Evidence(rows), {})).text.split())
    assert report.choices and all(f"Choice: {name} accuracy 100.0 % (" in text for name in report.choices)

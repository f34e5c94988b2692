"""What README.md and docs/*.md say of the code: counts, closed lists, splits, the log of measurements, nginx's text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import date

import pytest

from contract.contract import TASKS
from contract.kinds import KINDS
from data_gen.facts import fact_files
from data_gen.lint_facts import ANY_FACT, TEACHING_FACT
from eval.judge.verdict import CLASSES
from finetune.config import PRESETS
from quantize.recipe import RECIPES
from tests.conftest import ROOT
from tests.test_readme import PAGES, blocks


def test_the_counts_of_the_facts_are_theirs() -> None:
    page = " ".join(PAGES["docs/data.md"].split())
    files = fact_files(ROOT / "data_gen/facts/terminology")
    facts = [json.loads(line) for path in files for line in path.open(encoding="utf-8")]
    unsourced = sum(not fact["sources"] for fact in facts)
    assert len(files) == 5 and f"{len(facts)} facts in five categories" in page
    assert f"{unsourced} of them rest on general knowledge, {len(facts) - unsourced} name sources" in page
    assert not any(fact["reviewed"] for fact in facts) and "No fact has been reviewed by a clinician" in page


def test_the_count_of_the_rules_is_theirs() -> None:
    named = [int(count) for text in PAGES.values() for count in re.findall(r"against (\d+) rules", text)]
    assert named and set(named) == {len(ANY_FACT) + len(TEACHING_FACT)}


def test_the_counts_of_the_splits_are_theirs() -> None:
    done = subprocess.run([sys.executable, "-m", "data_gen", "terminology"], cwd=ROOT, capture_output=True, text=True)
    printed = re.findall(r"(\d+) \((\d+)\)", re.search(r"^all .*$", done.stdout, re.MULTILINE)[0])  # rows (facts)
    page = PAGES["docs/data.md"].replace(",", "")
    listed = re.findall(r"^\| (?:train|validation|test) \|[^|]*\| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert [(rows, facts) for facts, rows in listed] == printed and len(printed) == 3
    assert f"become {sum(int(rows) for rows, _ in printed)} rows four for each fact" in page


def first_column(page: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)`", PAGES[page], re.MULTILINE)


def test_the_failure_classes_are_listed_in_their_order() -> None:
    listed = [name for name in first_column("docs/judging.md") if name.isupper()]
    assert tuple(listed) == tuple(CLASSES)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("docs/tasks.md", set(KINDS)),
        ("docs/tasks.md", {path.stem for path in TASKS.glob("*.toml")}),
        ("docs/export.md", set(RECIPES)),
        ("docs/training.md", {path.stem for path in PRESETS.glob("*.toml")}),
        ("docs/training.md", {path.stem for path in (ROOT / "contract/bases").glob("*.toml")}),
    ],
)
def test_closed_lists_are_whole(page: str, names: set[str]) -> None:
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", PAGES[page])] == []


def test_the_log_is_dated_and_the_newest_day_comes_first() -> None:
    *titles, last = re.findall(r"^## (.+)$", PAGES["docs/results.md"], re.MULTILINE)
    days = [date.fromisoformat(title.partition(": ")[0]) for title in titles]
    assert last == "Not tried, not run" and days and days == sorted(days, reverse=True)


def test_every_measurement_names_its_machine() -> None:
    entries = re.split(r"^## ", PAGES["docs/results.md"], flags=re.MULTILINE)[1:-1]
    assert [entry.splitlines()[0] for entry in entries if "machine" not in entry.lower()] == []


def test_the_nginx_example_is_whole_and_said_not_to_have_run() -> None:
    page = PAGES["docs/judging.md"]
    (text,) = blocks(page, "nginx")
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    assert [line for line in lines if line and line[-1] not in ";{}"] == []
    assert text.count("{") == text.count("}") == 3
    upstreams = re.findall(r"^upstream (\w+) \{", text, re.MULTILINE)
    assert re.findall(r"proxy_pass http://(\w+);", text) == upstreams
    assert re.findall(r"listen ([\d.]+):", text) == ["127.0.0.1"]
    assert "It was not run here" in page[: page.index(text)][-400:]

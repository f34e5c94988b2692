"""The dataset card: every figure in it is what the files give when counted anew."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import jinja2
import pytest

from contract.contract import Contract, load_contract
from contract.example import SPLITS, Example
from data_gen.card import SCORED, card
from data_gen.compose.dataset import by_category, summary
from data_gen.facts import Fact
from tests.finished_dataset import FACTS, make_own, make_terminology, rows_of

LINE = "Certificate: no two splits share a name."
BARE = {"command": "python -m data_gen own.toml --out DIR", "task": "own", "seed": 12, "sha256": "cd" * 32}


@pytest.fixture(scope="module")
def terminology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "dataset"
    make_terminology(folder)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "dataset"
    make_own(folder)
    return folder


Table = dict[str, list[str]]  # first cell of a row -> its other cells


def tables(folder: Path) -> dict[str, Table]:
    """The card's tables by the first cell of their head; rows as they stand there."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    found: dict[str, Table] = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        head, rule, *rows = [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in block.splitlines()]
        assert set("".join(rule)) <= set("-:") and {len(row) for row in [rule, *rows]} == {len(head)}, head
        found[head[0]] = {row[0]: row[1:] for row in rows}
        assert len(found[head[0]]) == len(rows)
    return found


def all_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for rows in rows_of(folder).values() for row in rows]


@pytest.mark.parametrize("name", ["terminology", "own"])
def test_rows_and_concepts_are_those_of_the_files(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    splits = rows_of(folder) | {"all": all_rows(folder)}
    names = sorted({row["category"] for row in splits["all"]})
    wanted = {
        category.replace("|", "\\|"): [
            str(count)
            for rows in splits.values()
            for chosen in [[row for row in rows if category in (row["category"], "all")]]
            for count in (len(chosen), len({row["concept"] for row in chosen}))
        ]
        for category in [*names, "all"]
    }
    assert tables(folder)["category"] == wanted and len(wanted) > 2


def test_styles_and_system_prompts_are_those_of_the_files(terminology: Path) -> None:
    rows = all_rows(terminology)
    counts = Counter(row["id"].rpartition("/")[2].rpartition("-")[0] for row in rows)
    assert tables(terminology)["style"] == {
        style: [str(n), f"{100 * n / len(rows):.1f} %"] for style, n in counts.items()
    }
    prompted = sum(bool(row["system"]) for row in rows)
    text = (terminology / "README.md").read_text(encoding="utf-8")
    assert f"\n{prompted} of {len(rows)} rows ({100 * prompted / len(rows):.1f} %) carry the system prompt.\n" in text
    assert f"\n{len(rows)} synthetic requests about {len({row['concept'] for row in rows})} concepts" in text


def words(value: Any) -> int:
    return len(" ".join(texts(value)).split())


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for part in (value.values() if isinstance(value, dict) else value) for text in texts(part)]


def four(numbers: list[float], middle: str) -> list[str]:
    middling = [statistics.median(numbers), statistics.mean(numbers)]
    low, half, high = (f"{number:{middle}}" for number in (min(numbers), middling[0], max(numbers)))
    return [low, half, f"{middling[1]:.1f}", high]


@pytest.mark.parametrize("name", ["terminology", "own"])
def test_lengths_are_those_of_the_files(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    rows = all_rows(folder)
    sections = {section.title: section.name for section in load_contract(folder / "task.toml").sections}
    measured = {
        "response": [words(row["response"]) for row in rows],
        "request": [words(row["request"]) for row in rows],
    }
    measured |= {
        f"section {title}".replace("|", "\\|"): [words(row["record"][section]) for row in rows]
        for title, section in sections.items()
    }
    assert tables(folder)["words in"] == {what: four(numbers, "g") for what, numbers in measured.items()}


def test_readability_is_of_the_first_row_of_each_concept(terminology: Path) -> None:
    import textstat

    first: dict[str, dict[str, Any]] = {}
    for row in all_rows(terminology):
        first.setdefault(row["concept"], row)
    bodies = [" ".join(v for k, v in row["record"].items() if k != "note") for row in first.values()]
    assert tables(terminology)["readability"] == {
        "Flesch reading ease": four([textstat.flesch_reading_ease(body) for body in bodies], ".1f"),
        "Flesch-Kincaid grade": four([textstat.flesch_kincaid_grade(body) for body in bodies], ".1f"),
    }
    assert f"over {len(bodies)} answers" in (terminology / "README.md").read_text(encoding="utf-8")


def test_sources_are_those_of_the_facts_that_were_used(terminology: Path) -> None:
    used = {row["id"].rpartition("/")[0] for row in all_rows(terminology)}
    lines = [line for path in sorted(FACTS.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    facts = [fact for fact in map(json.loads, lines) if fact["id"] in used]
    cited = Counter(pair for fact in facts for pair in {(s["name"], s["licence"]) for s in fact["sources"]})
    wanted = {name: [licence, str(count)] for (name, licence), count in cited.items()}
    found = tables(terminology)
    assert found["source"] == wanted | {"no source: general knowledge": ["", str(sum(not f["sources"] for f in facts))]}
    by_licence = Counter(licence for fact in facts for licence in {s["licence"] for s in fact["sources"]})
    assert found["licence of sources"] == {licence: [str(count)] for licence, count in by_licence.items()}
    named = (FACTS / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert [name for name in wanted if f"| {name} |" not in named] == []
    text = (terminology / "README.md").read_text(encoding="utf-8")
    assert f"made from {len(facts)} facts" in text
    assert f"yet ({sum(fact['reviewed'] for fact in facts)} of {len(facts)})" in text


def test_the_card_says_what_a_reader_must_know(terminology: Path) -> None:
    text = (terminology / "README.md").read_text(encoding="utf-8")
    digest = hashlib.sha256(b"".join((terminology / f"{split}.jsonl").read_bytes() for split in SPLITS)).hexdigest()
    for said in ("\n**For education only. This is not medical advice", "\nLeak certificate: clean: ", "(ATTRIBUTION.md)",
                 "licence apache-2.0", "(categories_by_split.png)", "(lengths.png)", "\n## Limits\n", f" {digest} "):  # fmt: skip
        assert said in text
    first = rows_of(terminology)["train"][0]
    assert f"```text\n{first['request']}\n```" in text and f"```text\n{first['response']}\n```" in text
    shown = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert shown and json.loads(shown[1]) == first
    assert all(path.stat().st_size < 40_000 for path in terminology.glob("*.png"))
    assert (tables(terminology)["what"]["task"], tables(terminology)["what"]["seed"]) == (["terminology"], ["12"])


@pytest.mark.parametrize(
    ("name", "licence", "language", "tag"), [("terminology", "apache-2.0", ["en"], "medical"), ("own", "unknown", None, "odd|even 1")]
)  # fmt: skip
def test_the_front_matter_is_what_the_hub_reads(
    name: str, licence: str, language: list[str] | None, tag: str, request: pytest.FixtureRequest
) -> None:
    from huggingface_hub import DatasetCard

    folder = request.getfixturevalue(name)
    data = DatasetCard.load(folder / "README.md", ignore_metadata_errors=False).data
    assert (data.license, data.language, data.task_categories) == (licence, language, ["text-generation"])
    assert data.size_categories == ["1K<n<10K" if name == "terminology" else "n<1K"]
    assert tag in data.tags and len(set(data.tags)) == len(data.tags)
    files = [{"split": split, "path": f"{split}.jsonl"} for split in SPLITS]
    assert data.configs == [{"config_name": "default", "data_files": files}]


def test_a_users_own_task_has_a_sensible_card(own: Path) -> None:
    text = (own / "README.md").read_text(encoding="utf-8")
    found = tables(own)
    assert "style" not in found and "licence of sources" not in found and "ATTRIBUTION" not in text
    assert found["source"] == {"no source: general knowledge": ["", "60"]}
    assert list(found["section"]) == ["What \\| which", "Signs", "Cards", "Sure"]
    assert "licence of the texts is not stated" in text and "You write cards." in text and "erminology" not in text
    assert "these sources" not in text and "For education only" in text


def made_up(contract: Contract, records: list[dict[str, Any]]) -> dict[str, list[Example]]:
    rows = [Example(f"t/{n}/x-1", f"thing {n}", "t", "What?", "", record, contract.write(record), ())
            for n, record in enumerate(records)]  # fmt: skip
    return {"train": rows}


def tiny(tmp_path: Path, *sections: str) -> Contract:
    lines = ['name = "n"', 'about = "You."', 'heading = "{title}: "', 'separator = "\\n"', *sections]
    (tmp_path / "n.toml").write_text("\n".join(lines))
    return load_contract(tmp_path / "n.toml")


SURE = '[[section]]\nname = "sure"\ntitle = "Sure"\nkind = "choice"\noptions = ["yes", "no"]'
WHAT = '[[section]]\nname = "what"\ntitle = "What"\nkind = "prose"'


def test_without_prose_there_is_no_readability(tmp_path: Path) -> None:
    contract = tiny(tmp_path, SURE)
    text = card(contract, made_up(contract, [{"sure": "yes"}]), [Fact("t/0", "t", "thing 0")], LINE, BARE)
    assert f"\n{LINE}\n" in text and "textstat" not in text and "1 synthetic requests" in text


def test_readability_takes_a_bounded_number_of_texts(tmp_path: Path) -> None:
    contract = tiny(tmp_path, WHAT)
    dataset = made_up(contract, [{"what": "It is so."}] * (2 * SCORED + 1))
    scored = re.search(r"over (\d+) answers", card(contract, dataset, [], LINE, BARE))
    assert scored and SCORED / 2 < int(scored[1]) <= SCORED


def test_facts_without_a_row_do_not_count_and_a_review_does(tmp_path: Path) -> None:
    contract = tiny(tmp_path, SURE)
    dataset = made_up(contract, [{"sure": "yes"}, {"sure": "no"}])
    cited = ({"name": "S", "licence": "MIT"}, {"name": "S", "licence": "MIT"}, {"name": "T"})
    facts = [Fact(f"t/{n}", "t", f"thing {n}", sources=cited, reviewed=n == 1) for n in range(5)]
    (tmp_path / "README.md").write_text(card(contract, dataset, facts, LINE, BARE), encoding="utf-8")
    found = tables(tmp_path)["source"]
    assert found == {"S": ["MIT", "2"], "T": ["(not stated)", "2"], "no source: general knowledge": ["", "0"]}
    assert "\n1 of 2 facts behind it have been reviewed" in (tmp_path / "README.md").read_text()


def test_rows_whose_ids_name_no_style_are_counted_too(tmp_path: Path) -> None:
    contract = tiny(tmp_path, SURE)
    rows = made_up(contract, [{"sure": "yes"}] * 4)["train"]
    ids = ["t/a-1/plain-0", "t/a-1/plain-12", "t/a-1/own_style-1", "t/a-1/7"]
    dataset = {"train": [dataclasses.replace(row, id=name) for row, name in zip(rows, ids, strict=True)]}
    (tmp_path / "README.md").write_text(card(contract, dataset, [], LINE, BARE), encoding="utf-8")
    styles = {"(not named)": ["1", "25.0 %"], "own_style": ["1", "25.0 %"], "plain": ["2", "50.0 %"]}
    assert tables(tmp_path)["style"] == styles


def test_markdown_in_a_row_does_not_break_the_card(tmp_path: Path) -> None:
    contract = tiny(tmp_path, WHAT)
    rows = made_up(contract, [{"what": "See ```` and {{ x }} and <b>."}])["train"]
    row = dataclasses.replace(rows[0], request="```\n# Not a heading\n```")
    text = card(contract, {"train": [row]}, [], LINE, BARE | {"teacher": "a|b\nc"})
    assert "\n````text\n```\n# Not a heading\n```\n````\n" in text and "\n`````text\n" in text and "{{ x }}" in text
    assert "\n| teacher | a\\|b c |\n" in text


@pytest.mark.parametrize("key", sorted(BARE))
def test_what_the_card_needs_cannot_be_left_out(tmp_path: Path, key: str) -> None:
    contract = tiny(tmp_path, SURE)
    with pytest.raises(jinja2.UndefinedError, match=key):
        card(contract, made_up(contract, [{"sure": "yes"}]), [], LINE, {k: v for k, v in BARE.items() if k != key})


def test_a_category_may_be_named_like_the_line_of_all(tmp_path: Path) -> None:
    rows = made_up(tiny(tmp_path, SURE), [{"sure": "yes"}] * 3)["train"]
    dataset = {"train": [dataclasses.replace(row, category="all" if n else "b") for n, row in enumerate(rows)]}
    counted = [(name, counts[0][0]) for name, counts in by_category(dataset)]
    assert counted == [("all", 2), ("b", 1), ("all", 3)]
    assert [line.split()[:2] for line in summary(dataset).splitlines()[1:]] == [["all", "2"], ["b", "1"], ["all", "3"]]

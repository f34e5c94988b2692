"""finetune/tiny_text.py: what the tiny base reads holds nothing of what the task asks it later."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contract.base import load_base
from finetune.tiny_base import concept_names
from finetune.tiny_text import Article, documents, read_articles
from tests.conftest import ROOT

COUNT = 2000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "dataset"
    subprocess.run([sys.executable, "-m", "data_gen", "terminology", "--out", str(out)], cwd=ROOT, check=True)
    return out


@pytest.fixture(scope="module")
def articles(dataset: Path) -> list[Article]:
    return read_articles(*concept_names(dataset))


def test_no_article_is_about_a_concept_of_the_task(dataset: Path, articles: list[Article]) -> None:
    held_out, known = concept_names(dataset)
    assert len(articles) > 2000
    assert not {article.focus.lower() for article in articles} & known
    names = re.compile(r"\b(" + "|".join(re.escape(n) for n in held_out if len(n) > 2) + r")\b", re.IGNORECASE)
    assert [article.focus for article in articles if names.search(article.focus)] == []


def test_no_sentence_says_what_a_held_out_concept_is(dataset: Path, articles: list[Article]) -> None:
    held_out, _ = concept_names(dataset)
    defines = re.compile(
        r"(?:an? |the )?(" + "|".join(re.escape(n) for n in held_out if len(n) > 2) + r") (is|are) ", re.IGNORECASE
    )
    assert [s for a in articles for answer in a.answers for s in answer if defines.match(s)] == []


def test_no_sentence_of_a_fact_stands_in_the_text(articles: list[Article]) -> None:
    known = {s for article in articles for answer in article.answers for s in answer}
    facts = [json.loads(line) for path in (ROOT / "data_gen/facts/terminology").glob("*.jsonl") for line in path.open()]
    texts = [
        sentence
        for fact in facts
        for key in ("definition", "mechanism", "clinical")
        for sentence in re.split(r"(?<=\.) ", fact[key])
    ]
    assert len(texts) > 3000 and not known & set(texts)


def test_the_four_headings_of_the_task_never_stand_together(articles: list[Article]) -> None:
    titles = ("Definition", "Explanation", "Clinical Relevance", "Note")
    texts = list(documents(articles, load_base("tiny"), COUNT, seed=3))
    assert len(texts) == COUNT and all(text.endswith("</s>") for text in texts)
    assert not [
        text for text in texts if all(re.search(rf"^\W*{t}\W", text.partition("[/INST]")[2], re.M) for t in titles)
    ]


def test_the_same_seed_gives_the_same_text(articles: list[Article]) -> None:
    base = load_base("tiny")
    one, two, other = (list(documents(articles, base, 50, seed=s)) for s in (1, 1, 2))
    assert one == two != other


def test_the_shipped_base_was_made_from_this_text_and_kept_every_held_out_concept_out(dataset: Path) -> None:
    from finetune.tiny_text import NIH_TEXT
    from plumbing.handover import check_outputs, read_manifest, sha256

    folder = ROOT / "finetune/bases/tiny"
    manifest = read_manifest(folder, "base")
    check_outputs(folder, manifest)
    assert manifest["inputs"][NIH_TEXT.name] == sha256(NIH_TEXT)
    assert manifest["inputs"]["concepts.json"] == sha256(folder / "concepts.json")
    held_out, kept_out = concept_names(dataset)[0], concept_names(folder)[0]
    assert len(held_out) > 300 and held_out <= kept_out
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000

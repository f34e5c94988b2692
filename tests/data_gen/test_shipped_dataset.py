"""The dataset that the shipped facts and task give: known to the byte, large and even enough, free of seams."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from contract.contract import load_contract
from contract.example import read_splits
from data_gen.folder import digest
from tests.conftest import ROOT

# The identity of the shipped dataset.  Whoever changes facts, requests or frames on purpose renews it.
SHIPPED = "316ac47ec7a117762f06a22c61e8a77bd9ac3b93b20012060932fd4fbf891768"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shipped") / "dataset"
    subprocess.run([sys.executable, "-m", "data_gen", "terminology", "--out", str(out)], cwd=ROOT, check=True)
    return out


def test_the_shipped_dataset_is_the_known_one_on_any_machine(dataset: Path) -> None:
    assert digest(dataset) == SHIPPED
    assert SHIPPED in (dataset / "README.md").read_text(encoding="utf-8")


def test_rows_are_enough_and_their_styles_even(dataset: Path) -> None:
    rows = [row for split in read_splits(dataset, load_contract("terminology")).values() for row in split]
    styles = Counter(row.id.rpartition("/")[2].partition("-")[0] for row in rows)
    assert len(rows) >= 2000 and styles == dict.fromkeys(("plain", "clumsy", "category", "distracting"), len(rows) // 4)
    assert 0.4 < sum(bool(row.system) for row in rows) / len(rows) < 0.6
    assert len({row.request for row in rows}) == len(rows)


def test_no_seam_of_a_template_shows(dataset: Path) -> None:
    seam = re.compile(
        r"\b(\w+) \1\b|\ba [aeio]|\b(?:an) [bcdfgjkpqtvwz]|[a-z]\. [a-z]|  |[{}]|\.\.(?!\.)| [.,;:]|^[a-z]"
    )
    known = re.compile(r"\b(?:a one|a eu|had had|that that|beri beri)\b|pH|^von|^hCG|^aPTT", re.IGNORECASE)
    found = [
        (row.id, match.group())
        for split in read_splits(dataset, load_contract("terminology")).values()
        for row in split
        for text in row.record.values()
        for match in seam.finditer(text)
        if not known.search(text[max(0, match.start() - 3) : match.end() + 3])
    ]
    assert found == []

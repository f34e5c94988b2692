"""Dataset folders as `python -m data_gen` makes them: of the shipped task, and of a user's own task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from contract.example import SPLITS
from tests.conftest import ROOT

FACTS = ROOT / "data_gen/facts/terminology"
OWN = """name = "own_cards"
about = "You write cards."
heading = "{title}: "
separator = "\\n"
section = [
  { name = "what", title = "What | which", kind = "prose" },
  { name = "signs", title = "Signs", kind = "items" },
  { name = "cards", title = "Cards", kind = "pairs", labels = ["Q", "A"] },
  { name = "sure", title = "Sure", kind = "choice", options = ["yes", "no"] },
]
[data]
facts = "own.jsonl"
requests = ["What is {concept}?", "{Concept}, please.", "{concept}?"]
[data.sections]
what = ["{Concept} is {what}"]
signs = ["{signs}"]
cards = ["{cards}"]
sure = ["{sure}"]
"""


def make_terminology(folder: Path) -> str:
    """The shipped task's dataset; what data_gen printed."""
    return make("terminology", folder)


def make_own(folder: Path) -> str:
    """The dataset of a user's own task, with every kind of section that holds more than text."""
    task, facts = folder.parent / "own.toml", folder.parent / "own.jsonl"
    task.write_text(OWN)
    rows = [
        {"id": f"t/{n}", "category": f"odd|even {n % 2}", "concept": f"thing {n}", "what": "a thing of no use at all.",
         "signs": ["one sign", "two"], "sure": "yes", "cards": [{"Q": "Is it so?", "A": f"It is {n}"}] * (n % 3 + 1)}
        for n in range(60)
    ]  # fmt: skip
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make(str(task), folder)


def make(task: str, folder: Path) -> str:
    command = [sys.executable, "-m", "data_gen", task, "--out", str(folder)]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8").stdout


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split as they stand in the files."""
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").open(encoding="utf-8")] for split in SPLITS
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

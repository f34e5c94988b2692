"""README's commands exist: every `make` target, every `python -m` stage with the options it is shown with, every file."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from data_gen.lint_facts import ANY_FACT, TEACHING_FACT
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```(?:bash|sh)\n(.*?)```", README, re.DOTALL))
COMMANDS = [
    line.partition(" #")[0].strip() for line in BLOCKS.splitlines() if line.strip() and not line.startswith("#")
]
INLINE = re.findall(r"`((?:make|python -m|scripts/)[^`]*)`", README)


def is_of(prefix: str) -> list[str]:
    return sorted({c for c in COMMANDS + INLINE if re.match(rf"(?:[A-Z_]+=\S+ )*{prefix}", c)})


def test_the_readme_shows_the_two_commands_first() -> None:
    assert COMMANDS.index("make demo") < 6 and "make test" in COMMANDS


def test_the_python_that_has_the_packages_is_named_before_it_is_called() -> None:
    assert 0 < README.find("source .venv/bin/activate") < README.index("python -m ")


def test_what_a_reader_sees_first_is_no_medical_advice() -> None:
    assert "not medical advice" in README.partition("```")[0]


@pytest.mark.parametrize("command", is_of("make"))
def test_make_targets_exist(command: str) -> None:
    target = re.search(r"make(?: ([a-z-]+))?", command)
    assert target is not None
    done = subprocess.run(["make", "-n", target.group(1) or "help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", is_of("python -m"))
def test_stages_know_the_options_that_are_shown(command: str) -> None:
    words = shlex.split(command)
    module = words[words.index("-m") + 1]
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unknown = [w for w in words if w.startswith("--") and w not in done.stdout]
    assert unknown == []


def test_named_files_exist() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(
        r"`((?:[\w-]+/)+[\w.-]+\.(?:py|toml|sh|md|jsonl))`", README
    )
    assert named and [path for path in named if not (ROOT / path).exists() and not path.startswith("artifacts/")] == []


def test_the_counts_of_the_facts_are_theirs() -> None:
    facts = [json.loads(line) for path in (ROOT / "data_gen/facts/terminology").glob("*.jsonl") for line in path.open()]
    unsourced = sum(not fact["sources"] for fact in facts)
    assert f"{len(facts)} facts in five categories" in README
    assert re.search(rf"{unsourced} of them rest on\s+general knowledge, {len(facts) - unsourced} name", README)
    assert not any(fact["reviewed"] for fact in facts) and "No fact has been reviewed by a clinician" in README
    rules = len(ANY_FACT) + len(TEACHING_FACT)
    assert f"against {rules} rules" in README


def test_the_task_that_the_readme_shows_makes_a_dataset(tmp_path: Path) -> None:
    found = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert found is not None
    (tmp_path / "flashcard.toml").write_text(found.group(1))
    rows = [
        {
            "id": f"c/{i}",
            "category": "c",
            "concept": f"thing {i}",
            "definition": f"thing {i} is a thing with the number {i} in it.",
        }
        for i in range(40)
    ]
    (tmp_path / "my_facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "data_gen", str(tmp_path / "flashcard.toml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Term: Thing" in (tmp_path / "out" / "train.jsonl").read_text()

"""README.md and docs/*.md against the repository: commands, options, files and links exist, TOML parses, README is short."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.contract import load_contract
from tests.conftest import ROOT

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
         for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}  # fmt: skip
LINKED = PAGES | {"CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")}
README = PAGES["README.md"]
MOST_WORDS = 1600
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAUNCHERS = {"--node_rank", "--multi_gpu"}  # options of torchrun and accelerate, not of a stage


def blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def inline(text: str) -> list[str]:
    """What is between backticks, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def commands(text: str) -> list[str]:
    """The lines of bash blocks without their comments, and the commands between backticks."""
    lines = [line.partition(" #")[0].strip() for block in blocks(text, "bash") for line in block.splitlines()]
    shown = [
        code for code in inline(text) if re.match(r"(?:[A-Z_]+=\S+ )*(?:make|python -m|torchrun|scripts/)\b", code)
    ]
    return [line for line in lines + shown if line]


COMMANDS = sorted({command for text in PAGES.values() for command in commands(text)})
MODULE = re.compile(r"(?:python|torchrun .*?) -m ([\w.]+)(.*)")
CALLS = [found.groups() for command in COMMANDS if (found := MODULE.match(command))]  # (module, arguments)
STAGES = sorted({module for module, _ in CALLS} - {"pytest"})
TARGETS = [
    (found[1] or "help", command) for command in COMMANDS if (found := re.match(r"make(?: ([a-z-]+))?\b", command))
]


@functools.cache
def options(module: str) -> frozenset[str]:
    """The options of `python -m MODULE`, from its --help."""
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w-]*", done.stdout))


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= MOST_WORDS


def test_the_readme_shows_the_demo_first() -> None:
    first = commands(README)
    assert first[0] == "make demo" and first[1].startswith("make ask") and first[2] == "make test"


@pytest.mark.parametrize("page", PAGES)
def test_no_medical_advice_is_written_before_the_first_block(page: str) -> None:
    assert "not medical advice" in PAGES[page].partition("```")[0]


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if any("python -m" in b for b in blocks(text, "bash"))])  # fmt: skip
def test_the_environment_is_named_before_its_python_is_called(page: str) -> None:
    first_call = min(m.start() for m in re.finditer(r"^python -m ", PAGES[page], re.MULTILINE))
    assert 0 < PAGES[page].find("source .venv/bin/activate") < first_call


@pytest.mark.parametrize("target", sorted({target for target, _ in TARGETS}))
def test_make_targets_exist(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_make_variables_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {name for _, command in TARGETS for name in re.findall(r"\b([A-Z_]+)=", command)}
    assert named and [name for name in named if not re.search(rf"\b{name}\b", makefile)] == []


@pytest.mark.parametrize("module", STAGES)
def test_stages_know_the_options_that_are_shown(module: str) -> None:
    shown = {word for name, rest in CALLS if name == module for word in re.findall(r"(?<!\S)--[a-z][\w-]*", rest)}
    assert shown - options(module) == set()


@pytest.mark.parametrize("page", PAGES)
def test_options_without_a_command_belong_to_a_stage_of_the_page(page: str) -> None:
    alone = {code.split()[0].partition("=")[0] for code in inline(PAGES[page]) if code.startswith("--")} - LAUNCHERS
    stages = {module for command in commands(PAGES[page]) for module in MODULE.findall(command)}
    known = {option for module, _ in stages if module != "pytest" for option in options(module)}
    assert alone - known == set()


@pytest.mark.parametrize("page", LINKED)
def test_named_files_exist(page: str) -> None:
    codes = inline(LINKED[page]) + [word for _, rest in CALLS for word in rest.split() if rest in LINKED[page]]
    paths = {code for code in codes if re.fullmatch(r"(?:[\w.-]+/)+[\w.*-]*", code)}
    ours = {path for path in paths if re.search(r"\.(?:py|toml|sh|md|jsonl|json|ipynb)$", path) or (ROOT / path.partition("/")[0]).is_dir()}  # fmt: skip
    made = {path for path in ours if path.startswith(("artifacts/", "path/"))}
    assert [path for path in ours - made if not list(ROOT.glob(path))] == []


def test_the_tree_shows_every_room() -> None:
    tree = next(block for block in blocks(README, "text") if block.startswith("Modelfile"))
    shown = {line.split()[0].removesuffix("/") for line in tree.splitlines()}
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} <= shown
    assert [name for name in shown - {"artifacts"} if not (ROOT / name).exists()] == []


def anchors(text: str) -> Iterator[str]:
    """The anchors that GitHub gives the headings of a page."""
    for title in re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", LINKED[page])):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    assert [page for page in LINKED if page != "README.md" and f"]({page})" not in README] == []


@pytest.mark.parametrize("page", PAGES)
def test_toml_blocks_parse(page: str, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(PAGES[page], "toml")):
        if "section" in tomllib.loads(block) and "heading" in block:
            (tmp_path / f"{number}.toml").write_text(block, encoding="utf-8")
            load_contract(tmp_path / f"{number}.toml")


def test_the_readmes_task_makes_a_dataset(tmp_path: Path) -> None:
    (task,) = blocks(README, "toml")
    assert len(task.splitlines()) <= 10
    (tmp_path / "flashcard.toml").write_text(task)
    names = [(f"thing {n}", f"thing {n} is a thing with the number {n} in it.") for n in range(40)]
    rows = [{"id": f"c/{n}", "category": "c", "concept": c, "definition": d} for n, (c, d) in enumerate(names)]
    (tmp_path / "my_facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "data_gen", str(tmp_path / "flashcard.toml"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Term: Thing" in (tmp_path / "out" / "train.jsonl").read_text()


FIGURE = re.compile(r"\**\d[\d,]*(?:\.\d|(?<=,\d{3})\b| ?(?:%|(?:s|ms|min|nats|[KMG]i?B)\b))")
COMMAND = re.compile(r"(?:`(?:[A-Z_]+=\S+ )?|^)(?:make|python -m|torchrun|scripts/)\b")
NEAR = 6  # lines before or after a table in which its command is named


def tables(text: str) -> Iterator[tuple[int, int]]:
    """The first and the last line of each table, counted from 0."""
    rows = [number for number, line in enumerate(text.splitlines()) if line.startswith("|")]
    starts = [number for number in rows if number - 1 not in rows]
    return zip(starts, [number for number in rows if number + 1 not in rows], strict=True)


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_figures_name_the_command_that_prints_them(page: str) -> None:
    lines = PAGES[page].splitlines()
    for first, last in tables(PAGES[page]):
        cells = [cell.strip() for line in lines[first + 2 : last + 1] for cell in line.strip("|").split("|")]
        around = lines[max(0, first - NEAR) : last + 1 + NEAR]
        if any(FIGURE.match(cell) for cell in cells):
            assert any(COMMAND.search(line) for line in around), lines[first]

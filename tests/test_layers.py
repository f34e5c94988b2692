"""DESIGN's floors against the imports: stages meet in files, arrows run one way, every file fits in a head."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ["data_gen", "finetune", "quantize", "eval"]
OURS = {"contract", *STAGES, "scripts", "tests", "notebooks"}
# Third-party packages that cost more than a tenth of a second, or are not installed everywhere.
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "unsloth",
    "bitsandbytes",
    "sentencepiece",
    "gguf",
    "llama_cpp",
    "safetensors",
    "scipy",
    "datasketch",
    "textstat",
    "yaml",
    "statsmodels",
    "matplotlib",
    "ollama",
    "mistral_common",
    "huggingface_hub",
}
MAX_LINES, MAX_FUNCTION = 300, 40


def files(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py")) if "__pycache__" not in path.parts]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Top-level package and line of every import below `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; name the room"
            yield (node.module or "").partition(".")[0], node.lineno


def at_import(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The imports that run when the module is imported: outside functions and `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)
        waiting += ast.iter_child_nodes(node)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def test_the_contract_stands_on_its_own() -> None:
    allowed = sys.stdlib_module_names | {"contract", "jinja2", "jsonschema"}
    bad = [
        shown(path, line, name)
        for path in files("contract")
        for name, line in at_import(parse(path))
        if name not in allowed
    ]
    inside = allowed | {"huggingface_hub", "transformers", "tokenizers"}  # to fetch a base, to publish, to cut text
    bad += [
        shown(path, line, name)
        for path in files("contract")
        for name, line in imports(parse(path))
        if name not in inside
    ]
    assert bad == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_the_contract_and_itself_alone(stage: str) -> None:
    forbidden = OURS - {"contract", stage}
    found = [
        shown(path, line, name) for path in files(stage) for name, line in imports(parse(path)) if name in forbidden
    ]
    assert found == []


def test_nobody_imports_scripts_or_tests() -> None:
    rooms = files("contract", *STAGES, "scripts")
    found = [
        shown(path, line, name) for path in rooms for name, line in imports(parse(path)) if name in ("scripts", "tests")
    ]
    assert found == []


def test_eval_is_never_imported_as_a_name() -> None:
    names = [
        shown(path, node.lineno, "import eval hides the builtin; write from eval import ...")
        for path in files(*OURS - {"notebooks"})
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Import) and any(alias.name == "eval" for alias in node.names)
    ]
    assert names == []


@pytest.mark.parametrize("stage", STAGES)
def test_heavy_imports_wait_until_they_are_needed(stage: str) -> None:
    found = [shown(path, line, name) for path in files(stage) for name, line in at_import(parse(path)) if name in HEAVY]
    assert found == []


@pytest.mark.parametrize("room", ["contract", *STAGES, "scripts", "tests"])
def test_a_file_and_a_function_fit_in_a_head(room: str) -> None:
    long = []
    for path in files(room):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        long += [shown(path, lines, "lines")] if lines > MAX_LINES else []
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION:
                long.append(shown(path, node.lineno, f"{node.name} is longer than {MAX_FUNCTION} lines"))
    assert long == []


def test_no_module_shadows_another_when_run_as_a_file() -> None:
    taken = sys.stdlib_module_names | HEAVY | {"jinja2", "jsonschema", "httpx", "rich"}
    assert [shown(path, 1, path.stem) for path in files("contract", *STAGES) if path.stem in taken - {"__main__"}] == []


def test_every_module_says_what_it_is() -> None:
    rooms = [path for path in files("contract", *STAGES, "scripts") if path.name != "__init__.py"]
    assert [shown(path, 1, "no docstring") for path in rooms if not ast.get_docstring(parse(path))] == []


def test_names_that_say_nothing_are_not_used() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [
        shown(path, 1, path.stem) for path in files("contract", *STAGES, "scripts", "tests") if path.stem in empty
    ] == []


def _entries() -> list[str]:
    guard = "__name__ == '__main__'"
    entries = [
        p for p in files(*STAGES) if any(isinstance(n, ast.If) and ast.unparse(n.test) == guard for n in parse(p).body)
    ]
    return sorted(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for p in entries)


@pytest.mark.parametrize("entry", _entries())
def test_help_answers_at_once(entry: str) -> None:
    command = [sys.executable, "-m", entry, "--help"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # compiles
    before = os.times()
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    spent = sum(os.times()[2:4]) - sum(before[2:4])  # processor time: other work on the machine does not count
    assert result.stdout.startswith("usage: ") and spent < 0.5


def test_data_gen_is_an_entry() -> None:
    assert "data_gen" in _entries()

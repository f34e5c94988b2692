"""The floors of CONTRIBUTING.md against the imports: stages meet in files, arrows run one way, every file fits in a head."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ["data_gen", "finetune", "quantize", "eval"]
FLOORS = {
    "plumbing": set(),
    "contract": {"plumbing"},
    "models": {"contract", "plumbing"},
    **{stage: {"models", "contract", "plumbing"} for stage in STAGES},
}  # room -> the rooms of ours that it may import besides itself
TOP = ["scripts", "benchmarks"]  # may import all of them; imported by nobody
OURS = {*FLOORS, *TOP, "tests", "notebooks"}
# Third-party packages that cost more than a tenth of a second, or are not installed everywhere.
HEAVY = {
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "unsloth", "bitsandbytes", "sentencepiece", "gguf",
    "llama_cpp", "safetensors", "scipy", "textstat", "statsmodels", "matplotlib", "ollama", "mistral_common",
    "huggingface_hub", "rich",
}  # fmt: skip
MAX_LINES, MAX_FUNCTION, MAX_MODULES = 300, 40, 19


def files(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py")) if "__pycache__" not in path.parts]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Module and line of every import below `tree`, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; name the room"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


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


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top(name: str) -> str:
    return name.partition(".")[0]


def shown(path: Path, line: int, what: str) -> str:
    return f"{path.relative_to(ROOT)}:{line}: {what}"


def test_the_contract_needs_few_packages() -> None:
    """plumbing and contract run where only jinja2, jsonschema and rich are installed."""
    allowed = sys.stdlib_module_names | {"contract", "plumbing", "jinja2", "jsonschema", "rich"}
    anywhere = allowed | {"huggingface_hub"}  # inside functions: to publish
    bad = [
        shown(path, line, name)
        for path in files("plumbing", "contract")
        for found, permitted in ((at_import(parse(path)), allowed), (imports(parse(path)), anywhere))
        for name, line in found
        if top(name) not in permitted
    ]
    assert bad == []


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_only_the_floors_below_it(room: str) -> None:
    forbidden = OURS - FLOORS[room] - {room}
    found = [
        shown(path, line, name) for path in files(room) for name, line in imports(parse(path)) if top(name) in forbidden
    ]
    assert found == []


def test_nobody_imports_what_is_on_top() -> None:
    rooms = files(*FLOORS, *TOP)
    found = [
        shown(path, line, name)
        for path in rooms
        for name, line in imports(parse(path))
        if top(name) in (*TOP, "tests") and not module(path).startswith(top(name))
    ]
    assert found == []


def graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, anywhere in its file."""
    names = {module(path) for path in files(*FLOORS, *TOP)}
    found: dict[str, set[str]] = {name: set() for name in names}
    for path in files(*FLOORS, *TOP):
        for name, _ in imports(parse(path)):
            target = name if name in names else name.rpartition(".")[0]
            if target in names and target != module(path):
                found[module(path)].add(target)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and under TYPE_CHECKING count too."""
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nobody_imports_an_entry() -> None:
    """A module that a person runs holds nothing that another module needs."""
    entries = {name.removesuffix(".__main__") for name in _entries()} | set(_entries())
    found = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in targets
        if target.removesuffix(".__main__") in entries and (ROOT / f"{target.replace('.', '/')}.py").is_file()
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


@pytest.mark.parametrize("room", ["plumbing", "models", *STAGES])
def test_heavy_imports_wait_until_they_are_needed(room: str) -> None:
    found = [
        shown(path, line, name) for path in files(room) for name, line in at_import(parse(path)) if top(name) in HEAVY
    ]
    assert found == []


@pytest.mark.parametrize("room", [*FLOORS, *TOP, "tests"])
def test_a_file_and_a_function_fit_in_a_head(room: str) -> None:
    long = []
    for path in files(room):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        long += [shown(path, lines, "lines")] if lines > MAX_LINES else []
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION:
                long.append(shown(path, node.lineno, f"{node.name} is longer than {MAX_FUNCTION} lines"))
    assert long == []


def test_a_folder_holds_under_twenty_modules() -> None:
    counts = Counter(path.parent for path in files(*FLOORS, *TOP, "tests") if path.name != "__init__.py")
    assert {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MAX_MODULES} == {}


def test_no_module_shadows_another_when_run_as_a_file() -> None:
    taken = sys.stdlib_module_names | HEAVY | {"jinja2", "jsonschema", "httpx"}
    assert [shown(path, 1, path.stem) for path in files(*FLOORS) if path.stem in taken - {"__main__"}] == []


def test_every_module_says_what_it_is_in_one_line() -> None:
    bad = []
    for path in files(*FLOORS, *TOP):
        first = (ast.get_docstring(parse(path)) or "").partition("\n")[0]
        if path.name != "__init__.py" and not 0 < len(first) < 100:
            bad.append(shown(path, 1, f"the first line of its docstring has {len(first)} characters, expected 1 to 99"))
    assert bad == []


def test_names_that_say_nothing_are_not_used() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [shown(path, 1, path.stem) for path in files(*FLOORS, *TOP, "tests") if path.stem in empty] == []


def _entries() -> list[str]:
    guard = "__name__ == '__main__'"
    entries = [
        p for p in files(*FLOORS) if any(isinstance(n, ast.If) and ast.unparse(n.test) == guard for n in parse(p).body)
    ]
    return sorted(module(p) for p in entries)


@pytest.mark.parametrize("entry", _entries())
def test_help_answers_at_once(entry: str) -> None:
    command = [sys.executable, "-m", entry.removesuffix(".__main__"), "--help"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # compiles
    before = os.times()
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    spent = sum(os.times()[2:4]) - sum(before[2:4])  # processor time: other work on the machine does not count
    assert result.stdout.startswith("usage: ") and spent < 0.5


def test_data_gen_is_an_entry() -> None:
    assert "data_gen.__main__" in _entries()

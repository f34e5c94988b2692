"""The Colab notebook, cell by cell in a real kernel: PRESET=tiny on a CPU, in a copy of the tracked files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from plumbing.handover import check_outputs, read_manifest
from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "medical_mistral_colab.ipynb"


def notebook(**settings: str) -> Any:
    """The notebook with a cell after its settings (tagged `parameters`, as papermill has it) that changes some."""
    found = nbformat.read(NOTEBOOK, as_version=4)
    place = next(n for n, cell in enumerate(found.cells) if "parameters" in cell.metadata.get("tags", []))
    unknown = [name for name in settings if not re.search(rf"(?m)^{name} = ", found.cells[place].source)]
    assert unknown == []
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    found.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    return found


def execute(cells: Any, folder: Path, **more: bool) -> None:
    NotebookClient(cells, timeout=600, resources={"metadata": {"path": str(folder)}}, **more).execute()


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that git knows or would add."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def test_from_the_first_cell_to_an_answer(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENV", str(ROOT / ".venv"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cells = notebook(PRESET="tiny", SET="max_steps=12 invented_share=0", HUB="someone/medical-tiny")
    execute(cells, copy / "notebooks")
    run = copy / "artifacts" / "terminology" / "tiny"
    assert read_manifest(run / "adapter", "adapter")["settings"]["max_steps"] == 12
    model = read_manifest(run / "model", "model")
    check_outputs(run / "model", model)
    gguf = run / "model" / "model.q4_k_m.gguf"
    assert gguf.read_bytes()[:4] == b"GGUF"
    shown = {cell["id"]: printed(cell) for cell in cells.cells if cell.cell_type == "code"}
    assert f"{gguf.stat().st_size:,} bytes" in shown["download"]
    assert "license: apache-2.0" in shown["publish"] and "would push to someone/medical-tiny" in shown["publish"]
    assert len(printed(cells.cells[-1]).split()) >= 20  # twelve steps teach no form yet


def test_a_failed_command_ends_the_notebook(tmp_path: Path) -> None:
    """`!` alone goes on after a failure."""
    cells = nbformat.read(NOTEBOOK, as_version=4)
    cells.cells = [cell for cell in cells.cells if cell.cell_type == "code" and cell.source.startswith("!")]
    for cell in cells.cells:
        cell.source = re.sub(r"(?m)^!.*", "!exit 3", cell.source)
    execute(cells, tmp_path, allow_errors=True)
    told = [output.evalue for cell in cells.cells for output in cell.outputs if output.output_type == "error"]
    assert [line.partition(";")[0] for line in told] == [
        "make finetune failed", "make quantize failed", "quantize.publish failed", "make ask failed",
    ]  # fmt: skip


def test_without_a_checkout_it_clones(tmp_path: Path) -> None:
    cells = notebook(REPO=str(ROOT), PRESET="tiny")
    cloning = next(n for n, cell in enumerate(cells.cells) if cell["id"] == "clone")
    cells.cells[cloning + 1 :] = [nbformat.v4.new_code_cell("print(Path.cwd())")]
    execute(cells, tmp_path)
    assert printed(cells.cells[-1]).strip() == str(tmp_path / "medical-mistral")
    assert (tmp_path / "medical-mistral" / "Makefile").is_file()


def test_no_outputs_are_committed() -> None:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    nbformat.validate(found)
    code = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert code and [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []


def test_it_says_what_it_must() -> None:
    text = " ".join(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "markdown")
    assert "Not medical advice" in text and "A T4 was not measured" in text and "10.6 GiB" in text

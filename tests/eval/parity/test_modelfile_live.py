"""What eval.modelfile reads and what its lint says Ollama does, against the real `ollama create -f Modelfile`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from contract.base import load_base
from contract.contract import load_contract
from eval.parity.modelfile_lint import lint_text
from models.modelfile import read_modelfile, shown_parameters
from quantize.modelfile import fields, render
from tests.conftest import ROOT, _ollama_binary
from tests.eval.parity.test_modelfile import BAD, GOOD, READ
from tests.eval.parity.test_parity import make_model


@pytest.fixture(scope="module")
def gguf(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = make_model(small_adapter, tmp_path_factory.mktemp("live") / "model")
    return next(folder.glob("*.gguf")).read_bytes()


def create(url: str, gguf: bytes, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    binary = _ollama_binary()
    if binary is None:
        pytest.skip("no ollama binary on this machine")
    (folder / "model.gguf").write_bytes(gguf)
    path = folder / "Modelfile"
    path.write_bytes(text.encode())
    command = [binary, "create", "modelfile-live", "-f", str(path)]
    environment = os.environ | {"OLLAMA_HOST": url}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def show(url: str) -> dict[str, str]:
    answer: dict[str, str] = httpx.post(f"{url}/api/show", json={"model": "modelfile-live"}, timeout=60).json()
    return answer


@pytest.mark.parametrize(("text", "value"), READ)
def test_ollama_reads_the_same(ollama: str, gguf: bytes, tmp_path: Path, text: str, value: str) -> None:
    whole = text.replace("FROM m.gguf", "FROM ./model.gguf") if "FROM" in text else f"FROM ./model.gguf\n{text}"
    done = create(ollama, gguf, tmp_path, whole)
    assert done.returncode == 0, done.stderr
    assert show(ollama).get("system", "") == value == read_modelfile(whole).system


PULLED = ("FROM a registry", "FROM nowhere", "FROM nowhere, no dot", "FROM empty")  # would ask a registry
# Every claim that Ollama refuses, and some files that it takes in silence.
TAKEN = (
    "literal BOS",
    "dead SYSTEM",
    "escape in a stop",
    "no-break space",
    "twice",
    "mirostat",
    "text behind the quote",
)
TRIED = {
    name: text
    for name, (text, _, _, _) in BAD.items()
    if name not in PULLED and (name in TAKEN or any("refuses" in f.cause for f in lint_text(text, ROOT)))
}


@pytest.mark.parametrize("name", TRIED)
def test_what_is_said_to_be_refused_is(ollama: str, gguf: bytes, tmp_path: Path, name: str) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf)
    [finding] = lint_text(TRIED[name], tmp_path)
    done = create(ollama, gguf, tmp_path, TRIED[name])
    assert (done.returncode != 0) == ("refuses" in finding.cause), (finding, done.stderr[-500:])


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_clean_file_is_taken(ollama: str, gguf: bytes, tmp_path: Path, text: str) -> None:
    done = create(ollama, gguf, tmp_path, text)
    assert done.returncode == 0, done.stderr


def test_the_rendered_modelfile_gives_the_same_model(ollama: str, gguf: bytes, tmp_path: Path) -> None:
    values = fields(load_contract("terminology"), load_base("tiny"))
    text = render(values, "model.gguf")
    assert create(ollama, gguf, tmp_path, text).returncode == 0
    shown, read = show(ollama), read_modelfile(text)
    assert (shown["template"], shown["system"]) == (read.template, read.system)
    assert shown_parameters(shown["parameters"]) == read.parameters

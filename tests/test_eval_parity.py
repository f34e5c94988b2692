"""On a real Ollama: what is served as trained passes, and each known way to break it is caught."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.base import load_base
from contract.contract import load_contract
from contract.errors import UserError
from contract.handover import read_manifest
from eval.conversations import CONVERSATIONS
from eval.parity import compare
from eval.server import Server
from quantize.modelfile import fields
from quantize.ollama_api import Ollama
from quantize.register import register
from tests.conftest import ROOT, make_tokenizer

FEW = {
    name: CONVERSATIONS[name] for name in ("single turn", "own system text", "two turns", "user text: double spaces")
}
TEMPLATE = load_base("tiny").ollama_template()


def make_model(adapter: Path, out: Path) -> Path:
    """A model folder by `python -m quantize`."""
    subprocess.run([sys.executable, "-m", "quantize", adapter, "--out", out], cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def folder(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(small_adapter, tmp_path_factory.mktemp("parity") / "model")


@pytest.fixture(scope="module")
def served(ollama: str, folder: Path) -> Server:
    register(folder, "parity", Ollama(ollama))
    return Server(ollama)


def serve_otherwise(url: str, folder: Path, **changes: Any) -> str:
    """Register the folder's weights with other fields than its own, as a stranger's Modelfile would."""
    values: dict[str, Any] = dict(fields(load_contract(folder / "task.toml"), load_base(folder / "base.toml")))
    parameters = values["parameters"] | changes.pop("parameters", {})
    gguf = next(folder.glob("*.gguf")).name
    files = {gguf: "sha256:" + read_manifest(folder, "model")["outputs"][gguf]}
    body = {"model": "otherwise", "files": files, "stream": False} | values | changes | {"parameters": parameters}
    answer = httpx.post(f"{url}/api/create", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return "otherwise"


def run_parity(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eval.parity", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_there_are_enough_conversations_and_no_two_alike() -> None:
    assert len(CONVERSATIONS) >= 40
    assert len({json.dumps(messages) for messages in CONVERSATIONS.values()}) == len(CONVERSATIONS)


def test_served_as_trained(served: Server, folder: Path, tmp_path: Path) -> None:
    done = run_parity(folder, "--model", "parity", "--host", served.url, "--out", tmp_path / "parity.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"served as trained: {len(CONVERSATIONS)} conversations equal" in done.stdout
    result = json.loads((tmp_path / "parity.json").read_text())
    assert result["equal"] and result["differences"] == [] and result["conversations"] == len(CONVERSATIONS)
    assert result["digest"] == served.digest("parity") != ""


def without(text: str, part: str) -> str:
    assert text.count(part) == 1
    return text.replace(part, "")


DEAD_SYSTEM = without(TEMPLATE, "{{ if and $.System (eq $i $last) }}{{ $.System }}\n\n{{ end }}")
BROKEN = {
    "a literal <s> doubles the BOS": ({"template": "<s>" + TEMPLATE}, {"template", "text", "ids", "prompt tokens"}),
    "a template without .System": ({"template": DEAD_SYSTEM}, {"template", "text", "ids", "prompt tokens"}),
    "a stray space": (
        {"template": TEMPLATE.replace("[/INST]", " [/INST]")},
        {"template", "text", "ids", "prompt tokens"},
    ),
    "another system text": ({"system": "Be brief."}, {"system", "text", "ids", "prompt tokens"}),
    "a wrong stop": ({"parameters": {"stop": ["[INST]"]}}, {"parameter stop", "stop"}),
    "another context": ({"parameters": {"num_ctx": 512}}, {"parameter num_ctx"}),
    "an added parameter": ({"parameters": {"top_k": 3}}, {"parameter top_k"}),
}


@pytest.mark.parametrize(("changes", "caught"), BROKEN.values(), ids=BROKEN)
def test_what_is_served_otherwise_is_caught(
    served: Server, folder: Path, changes: dict[str, Any], caught: set[str]
) -> None:
    model = serve_otherwise(served.url, folder, **changes)
    differences = compare(served, model, folder, conversations=FEW)
    assert {difference.what for difference in differences} == caught
    assert all(difference.trained != difference.served for difference in differences)


def test_the_same_fields_registered_by_hand_pass(served: Server, folder: Path) -> None:
    assert compare(served, serve_otherwise(served.url, folder), folder, conversations=FEW) == []


def test_a_double_bos_is_one_token_more(served: Server, folder: Path) -> None:
    model = serve_otherwise(served.url, folder, template="<s>" + TEMPLATE)
    found = {d.what: d for d in compare(served, model, folder, conversations={"one": FEW["single turn"]})}
    assert int(found["prompt tokens"].served) == int(found["prompt tokens"].trained) + 1
    assert json.loads(found["ids"].served) == [1, *json.loads(found["ids"].trained)]
    assert found["text"].served == repr("<s>")[:-1] + found["text"].trained[1:]


def test_another_tokenizer_is_caught(served: Server, folder: Path, small_base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(small_base, tmp_path / "base")
    make_tokenizer(other, size=900)
    differences = compare(served, "parity", folder, str(other), FEW)
    assert {difference.what for difference in differences} == {"ids", "prompt tokens"}


def test_other_weights_are_caught(served: Server, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["outputs"]["model.q4_k_m.gguf"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert {difference.what for difference in compare(served, "parity", other, conversations=FEW)} == {"weights"}


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (edit("Modelfile", "[INST] ", "[INST]"), {"template in the Modelfile"}),
        (edit("Modelfile", "first-year", "second-year"), {"system in the Modelfile"}),
        (edit("Modelfile", "PARAMETER num_predict 512", "PARAMETER num_predict 99"), {"parameter num_predict"}),
    ],
)
def test_an_edited_modelfile_is_caught(
    served: Server, folder: Path, tmp_path: Path, change: Callable[[Path], None], what: set[str]
) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    change(other)
    assert {difference.what for difference in compare(served, "parity", other, conversations=FEW)} == what


def test_a_difference_shows_both_strings_and_exits_2(served: Server, folder: Path, tmp_path: Path) -> None:
    model = serve_otherwise(served.url, folder, template=DEAD_SYSTEM)
    out = tmp_path / "parity.json"
    done = run_parity(folder, "--model", model, "--host", served.url, "--out", out)
    assert done.returncode == 2 and "NOT served as trained" in done.stdout
    assert "'[INST] Explain the medical term: Hypertension[/INST]'" in done.stdout, "what is served"
    assert "'[INST] You explain medical terms" in done.stdout, "what was trained"
    result = json.loads(out.read_text())
    assert not result["equal"] and {"template", "text"} <= {d["what"] for d in result["differences"]}


def test_bad_input_is_one_line(served: Server, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model 'nobody'; `python -m quantize.register"):
        compare(served, "nobody", folder)
    with pytest.raises(UserError, match="not a finished model folder"):
        compare(served, "parity", tmp_path)
    with pytest.raises(UserError, match="no such base folder"):
        compare(served, "parity", folder, str(tmp_path / "none"))

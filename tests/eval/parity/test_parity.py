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
from eval.parity.__main__ import compare, control_line, describe, requests
from models.conversations import CONVERSATIONS, turns, unlike
from models.ollama_server import Server
from plumbing.errors import UserError
from plumbing.handover import read_manifest
from quantize.modelfile import fields
from quantize.register import register, register_all, tags
from tests.conftest import ROOT, make_tokenizer

FEW = {
    name: CONVERSATIONS[name] for name in ("single turn", "own system text", "two turns", "user text: double spaces")
}
TEMPLATE = load_base("tiny").ollama_template()


def make_model(adapter: Path, out: Path, types: str = "q4_k_m") -> Path:
    """A model folder by `python -m quantize`."""
    command = [sys.executable, "-m", "quantize", adapter, "--out", out, "--type", types]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def folder(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(small_adapter, tmp_path_factory.mktemp("parity") / "model")


@pytest.fixture(scope="module")
def served(ollama: str, folder: Path) -> Server:
    register(folder, "parity", Server(ollama))
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
    assert len(CONVERSATIONS) >= 200
    assert len({json.dumps(messages) for messages in CONVERSATIONS.values()}) == len(CONVERSATIONS)


@pytest.mark.parametrize("pairs", [[("a", turns("u", "1")), ("a", turns("u", "2"))], [("a", []), ("b", [])]])
def test_a_name_or_a_conversation_cannot_stand_twice(pairs: list[tuple[str, list[dict[str, str]]]]) -> None:
    with pytest.raises(ValueError, match="appears twice"):
        unlike(pairs)


# part of the name -> what at least one of those conversations holds: the corpus cannot lose a hard text unseen
HELD = {
    "emoji": "\u200d", "chinese": "什", "combining": "e\u0301", "arabic": "ض", "tabs": "\t", "double spaces": "   ",
    "edges": "\n\n", "carriage": "\r\n", "no-break": "\u00a0", "zero-width": "\u200b", "control token [INST]": "[/INST]",
    "control token </s>": "</s>", "control token <s>": "<s>", "template braces": "{{ .System }}", "quotes": '"""',
    "backslashes": "\\n", "code fence": "```", "markdown": "## ", "json": '{"a"', "digits": "3.14", "empty": "",
    "very long": "arteries", "request": "HbA1c",
}  # fmt: skip


@pytest.mark.parametrize(("name", "part"), HELD.items())
def test_the_corpus_holds_every_hard_text(name: str, part: str) -> None:
    assert [m for n, messages in CONVERSATIONS.items() if name in n for m in messages if part in m["content"]]


def test_served_as_trained(served: Server, folder: Path, tmp_path: Path) -> None:
    done = run_parity(folder, "--model", "parity", "--host", served.url, "--out", tmp_path / "parity.json")
    assert (done.returncode, done.stderr) == (0, "")
    every = len(CONVERSATIONS) + 1  # one fills the context
    assert f"served as trained: {every} conversations equal" in done.stdout
    result = json.loads((tmp_path / "parity.json").read_text())
    assert result["equal"] and result["differences"] == result["causes"] == result["left_out"] == []
    assert (result["conversations"], result["counts"]) == (every, {})
    assert result["digest"] == served.digest("parity") != ""
    assert result["gguf_sha256"] == read_manifest(folder, "model")["outputs"]["model.q4_k_m.gguf"]
    assert result["ollama"] == served.check()


def test_a_users_control_tokens_are_told_in_a_line(served: Server, folder: Path) -> None:
    found = compare(served, "parity", folder, conversations=FEW)
    assert {text: token["id"] for text, token in found.control_tokens.items()} == {
        "[INST]": 3, "[/INST]": 4, "<s>": 1, "</s>": 2,
    }  # fmt: skip
    [line] = control_line(found.control_tokens)
    assert (
        line.startswith("a user's words [INST] [/INST] <s> </s> become control tokens") and "open to injection" in line
    )
    tamed = {text: token | {"served as": "text"} for text, token in found.control_tokens.items()}
    assert control_line(tamed) == ["a user's words [INST] [/INST] <s> </s> stay text when served"]


def test_a_full_context_is_tried_and_what_is_longer_is_left_out(served: Server, folder: Path, tmp_path: Path) -> None:
    too_long = {"too long": turns("u", "blood pressure " * 2000)}
    found = compare(served, "parity", folder, conversations=FEW | too_long)
    assert (found.left_out, found.conversations, found.differences) == (["too long"], len(FEW) + 1, [])
    assert "1 conversations left out" in describe("parity", found, tmp_path)
    model = serve_otherwise(served.url, folder, parameters={"num_ctx": 512})
    found = compare(served, model, folder, conversations=FEW)
    assert ("fills num_ctx 1024", "an answer") in {(d.where, d.what) for d in found.differences}
    assert any("does not fit the served num_ctx" in cause for cause in found.causes)


def test_requests_of_a_dataset_are_added(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "dataset"
    subprocess.run([sys.executable, "-m", "data_gen", "terminology", "--out", data], cwd=ROOT, check=True)
    rows = {row["id"]: row["request"] for row in map(json.loads, (data / "test.jsonl").open())}
    found = requests(str(data), folder)
    assert len(found) == 24 < len(rows) and requests(None, folder) == {}
    assert all(rows[name.removeprefix("test split: ")] == m[0]["content"] for name, m in found.items())


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
    "another context": ({"parameters": {"num_ctx": 512}}, {"parameter num_ctx", "an answer"}),
    "another number of tokens": ({"parameters": {"num_predict": 9}}, {"parameter num_predict"}),
    "an added parameter": ({"parameters": {"top_k": 3}}, {"parameter top_k"}),
}


@pytest.mark.parametrize(("changes", "caught"), BROKEN.values(), ids=BROKEN)
def test_what_is_served_otherwise_is_caught(
    served: Server, folder: Path, changes: dict[str, Any], caught: set[str]
) -> None:
    model = serve_otherwise(served.url, folder, **changes)
    differences = compare(served, model, folder, conversations=FEW).differences
    assert {difference.what for difference in differences} == caught
    assert all(difference.trained != difference.served for difference in differences)


def test_the_same_fields_registered_by_hand_pass(served: Server, folder: Path) -> None:
    assert compare(served, serve_otherwise(served.url, folder), folder, conversations=FEW).differences == []


def test_a_double_bos_is_one_token_more(served: Server, folder: Path) -> None:
    model = serve_otherwise(served.url, folder, template="<s>" + TEMPLATE)
    found = {
        d.what: d
        for d in compare(served, model, folder, conversations={"one": FEW["single turn"]}).differences
        if d.where == "one"
    }
    assert found["prompt tokens"].served == found["prompt tokens"].trained + 1
    assert found["ids"].served == [1, *found["ids"].trained]
    assert found["text"].served == "<s>" + found["text"].trained


def test_another_tokenizer_is_caught(served: Server, folder: Path, small_base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(small_base, tmp_path / "base")
    make_tokenizer(other, size=900)
    found = compare(served, "parity", folder, str(other), FEW)
    assert {difference.what for difference in found.differences} == {"ids", "prompt tokens"}
    assert "the GGUF's vocabulary is not that of the base folder's tokenizer" in found.causes[0]


def test_each_of_a_folders_types_is_served_as_trained(ollama: str, small_adapter: Path, tmp_path: Path) -> None:
    several = make_model(small_adapter, tmp_path / "model", "q8_0,q4_k_m,f16")  # by name another one comes first
    names = tags("parity:several", ["q8_0", "q4_k_m", "f16"])
    register_all(several, names, Server(ollama))
    outputs = read_manifest(several, "model")["outputs"]
    for name, kind in names.items():
        found = compare(Server(ollama), name, several, conversations=FEW)
        assert (found.differences, found.gguf) == ([], outputs[f"model.{kind}.gguf"])


def test_other_weights_are_caught(served: Server, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["outputs"]["model.q4_k_m.gguf"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    differences = compare(served, "parity", other, conversations=FEW).differences
    assert {difference.what for difference in differences} == {"weights"}


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
    differences = compare(served, "parity", other, conversations=FEW).differences
    assert {difference.what for difference in differences} == what


def test_bad_input_is_one_line(served: Server, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model 'nobody'; `python -m quantize.register"):
        compare(served, "nobody", folder)
    with pytest.raises(UserError, match="not a finished model folder"):
        compare(served, "parity", tmp_path)
    done = run_parity()
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("error: no MODEL_DIR; name ")
    with pytest.raises(UserError, match="no such base folder"):
        compare(served, "parity", folder, str(tmp_path / "none"))

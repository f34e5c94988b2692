"""Each known way to serve a model wrongly, really registered on a real Ollama: parity exits 2 and names the cause."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.base import load_base
from eval.parity import __main__ as parity
from models.conversations import CONVERSATIONS
from models.ollama_server import Server
from plumbing.errors import run
from plumbing.handover import read_manifest, write_manifest
from quantize.register import register, upload
from tests.conftest import _ollama_binary, running_ollama
from tests.eval.parity.test_parity import DEAD_SYSTEM, TEMPLATE, make_model, serve_otherwise

FEW = {name: CONVERSATIONS[name] for name in ("single turn", "own system text", "two turns", "user text: accents")}
TOOLS = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def folder(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(small_adapter, tmp_path_factory.mktemp("faults") / "model")


@pytest.fixture
def said(
    ollama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, dict[str, Any]]]]:
    """Run `python -m eval.parity` in this process over FEW: its exit code, what it printed, parity.json."""
    monkeypatch.setattr(parity, "CONVERSATIONS", FEW)

    def call(folder: Path, model: str, url: str = ollama) -> tuple[int, str, dict[str, Any]]:
        out = tmp_path / "parity.json"
        arguments = ["parity", str(folder), "--model", model, "--host", url, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stopped:
            run(parity.main)
        return int(str(stopped.value.code)), capsys.readouterr().out, json.loads(out.read_text())

    yield call


def causes(out: str) -> list[str]:
    lines = [line.removeprefix("likely cause: ") for line in out.splitlines() if line.startswith("likely cause: ")]
    assert "NOT served as trained" in out.splitlines()[0]
    return lines


FIELDS: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "a literal <s> in TEMPLATE": (
        {"template": "<s>" + TEMPLATE},
        "TEMPLATE holds a literal <s>, and the tokenizer puts its own first: the prompt begins with two ",
        {"template", "text", "ids", "prompt tokens"},
    ),
    "a dead SYSTEM": (
        {"template": DEAD_SYSTEM},
        "TEMPLATE has no .System: the system text never reaches the model; ",
        {"template", "text", "ids", "prompt tokens"},
    ),
    "a stray space before [/INST]": (
        {"template": TEMPLATE.replace("[/INST]", " [/INST]")},
        "only white space differs in TEMPLATE: served 'Hypertension [/INST]', trained 'Hypertension[/INST]'; ",
        {"template", "text", "ids", "prompt tokens"},
    ),
    "a wrong stop": (
        {"parameters": {"stop": ["<|im_end|>"]}},
        "the served stop is '<|im_end|>', the base ends an answer with '</s>': ",
        {"parameter stop", "stop"},
    ),
    "no stop": ({"parameters": {"stop": []}}, "the served stop is none, ", {"parameter stop", "stop"}),
    "another temperature": (
        {"parameters": {"temperature": 0.8}},
        "the served parameters are not the Modelfile's (temperature); ",
        {"parameter temperature"},
    ),
    "another system text": (
        {"system": "Be brief."},
        "SYSTEM is not the contract's text; ",
        {"system", "text", "ids", "prompt tokens"},
    ),
    "another TEMPLATE altogether": (
        {"template": "Q: {{ .System }} {{ .Prompt }}\nA:"},
        "TEMPLATE is not the base's; ",
        {"template", "text", "ids", "prompt tokens"},
    ),
}


@pytest.mark.parametrize(("changes", "cause", "what"), FIELDS.values(), ids=FIELDS)
def test_wrong_fields(
    ollama: str, folder: Path, said: Any, changes: dict[str, Any], cause: str, what: set[str]
) -> None:
    register(folder, "faults", Server(ollama))  # sends the weights
    code, out, result = said(folder, serve_otherwise(ollama, folder, **changes))
    assert code == 2 and [line[: len(cause)] for line in causes(out)] == [cause], out
    assert result["counts"].keys() == what and not result["equal"] and result["causes"] == causes(out)


def test_a_difference_shows_both_strings(ollama: str, folder: Path, said: Any) -> None:
    register(folder, "faults", Server(ollama))
    _, out, result = said(folder, serve_otherwise(ollama, folder, template=DEAD_SYSTEM))
    lines = out.splitlines()
    at = lines.index("single turn: text")
    assert lines[at + 1].startswith("  trained '[INST] You explain medical terms")
    assert lines[at + 2] == "  served  '[INST] Explain the medical term: Hypertension[/INST]'"
    assert len(result["differences"]) <= 20 and max(map(len, lines)) < 500


def edited(folder: Path, out: Path, new: dict[str, Any] | None = None, removed: tuple[str, ...] = ()) -> Path:
    """The model folder with other metadata in its GGUF, handed over as a faulty export would."""
    import gguf
    from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

    logging.getLogger("gguf-new-metadata").setLevel(logging.ERROR)
    shutil.copytree(folder, out)
    path = next(out.glob("*.gguf"))
    kinds = {bool: gguf.GGUFValueType.BOOL, str: gguf.GGUFValueType.STRING}
    details = {key: MetadataDetails(kinds[type(value)], value) for key, value in (new or {}).items()}
    copy_with_new_metadata(
        gguf.GGUFReader(next(folder.glob("*.gguf"))), gguf.GGUFWriter(path, "llama"), details, list(removed)
    )
    old = read_manifest(folder, "model")
    write_manifest(out, "model", old["inputs"], old["settings"], old["counts"])
    return out


def serve(url: str, folder: Path, **changes: Any) -> str:
    gguf = next(folder.glob("*.gguf"))
    upload(Server(url), gguf, read_manifest(folder, "model")["outputs"][gguf.name])
    return serve_otherwise(url, folder, **changes)


EXPORTS: dict[str, tuple[dict[str, Any], tuple[str, ...], str, set[str]]] = {
    "the wrong add_space_prefix": (
        {"tokenizer.ggml.add_space_prefix": True},
        (),
        "the GGUF's tokenizer.ggml.add_space_prefix is true, the base was trained with false: ",
        {"gguf add_space_prefix", "ids", "prompt tokens"},
    ),
    "no tokenizer scores": (
        {},
        ("tokenizer.ggml.scores",),
        "the GGUF has no tokenizer.ggml.scores: ",
        {"gguf scores", "ids", "prompt tokens"},
    ),
    "the wrong add_bos_token": (
        {"tokenizer.ggml.add_bos_token": False},
        (),
        "the GGUF's tokenizer.ggml.add_bos_token is false, the base was trained with true: ",
        {"gguf add_bos_token", "prompt tokens"},
    ),
    "its own chat template with tools": (
        {"tokenizer.chat_template": TOOLS},
        (),
        "the server does not use TEMPLATE but the GGUF's own chat template (its jinja mentions tools, or ",
        {"template", "text", "ids", "prompt tokens", "an answer"},  # the full context is too full then
    ),
}


@pytest.mark.parametrize(("new", "removed", "cause", "what"), EXPORTS.values(), ids=EXPORTS)
def test_wrong_gguf(
    ollama: str, folder: Path, tmp_path: Path, said: Any,
    new: dict[str, Any], removed: tuple[str, ...], cause: str, what: set[str],
) -> None:  # fmt: skip
    faulty = edited(folder, tmp_path / "model", new, removed)
    code, out, result = said(faulty, serve(ollama, faulty))
    assert code == 2 and [line[: len(cause)] for line in causes(out)] == [cause], out
    assert result["counts"].keys() == what and result["causes"] == causes(out)


def test_a_gguf_copied_without_a_change_passes(ollama: str, folder: Path, tmp_path: Path, said: Any) -> None:
    copy = edited(folder, tmp_path / "model")
    code, out, result = said(copy, serve(ollama, copy))
    assert code == 0 and result["equal"] and "served as trained" in out


def test_another_gguf_than_the_folders(ollama: str, folder: Path, tmp_path: Path, said: Any) -> None:
    other = edited(folder, tmp_path / "model", {"general.name": "another"})
    code, out, result = said(folder, serve(ollama, other))
    assert code == 2 and result["counts"] == {"weights": 1}
    assert causes(out)[0].startswith("the served weights are not the folder's GGUF; register the model folder again")


def test_a_server_set_to_take_the_ggufs_template(folder: Path, said: Any) -> None:
    """OLLAMA_GO_TEMPLATE=0: the GGUF's jinja is right here, so only what the server says of itself tells."""
    binary = _ollama_binary()
    if binary is None:
        pytest.skip("no ollama binary on this machine")
    with running_ollama(binary, OLLAMA_GO_TEMPLATE="0") as url:
        code, out, result = said(folder, serve(url, folder), url)
    assert code == 2 and "OLLAMA_GO_TEMPLATE=0 is set" in causes(out)[0]
    assert result["counts"]["template"] == 1


def test_two_faults_are_both_named(ollama: str, folder: Path, tmp_path: Path, said: Any) -> None:
    faulty = edited(folder, tmp_path / "model", {"tokenizer.ggml.add_space_prefix": True})
    code, out, _ = said(faulty, serve(ollama, faulty, template="<s>" + TEMPLATE, parameters={"stop": ["x"]}))
    found = causes(out)
    assert code == 2 and len(found) == 3
    assert all(
        part in line for part, line in zip(("add_space_prefix", "literal <s>", "stop is 'x'"), found, strict=True)
    )


def test_the_template_here_is_the_bases() -> None:
    assert load_base("tiny").ollama_template() == TEMPLATE

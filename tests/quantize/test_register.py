"""quantize.register on the real Ollama, and on stand-in servers that fail in the ways a real one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.ollama_server import Server
from plumbing.errors import UserError
from plumbing.handover import read_manifest, sha256, write_manifest
from quantize.export import export
from quantize.modelfile import render
from quantize.recipe import RECIPES
from quantize.register import differences, register, register_all, tags
from tests.conftest import ROOT, _ollama_binary, make_small_adapter
from tests.models.test_ollama_upload import BUSY, SHORT
from tests.ollama_stand_in import CLOSE, Reply, in_turn, speaking
from tests.quantize.test_modelfile import changed

GGUF = "model.q4_k_m.gguf"


@pytest.fixture(scope="module")
def model(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("registered") / "model"
    export(small_adapter, folder)
    return folder


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def show(url: str, name: str) -> dict[str, Any]:
    return dict(httpx.post(f"{url}/api/show", json={"model": name}, timeout=60).json())


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "quantize.register", *arguments]
    return subprocess.run(line, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def test_the_command_registers_and_names_the_next_one(ollama: str, model: Path) -> None:
    done = command(str(model), "medical-mistral:tiny", OLLAMA_HOST=ollama.removeprefix("http://"))
    assert (done.returncode, done.stderr) == (0, "")
    listed = {m["name"]: m["digest"] for m in httpx.get(f"{ollama}/api/tags", timeout=60).json()["models"]}
    assert f"({listed['medical-mistral:tiny'][:12]})" in done.stdout
    assert 'ollama run medical-mistral:tiny "Explain the medical term: Hypertension"' in done.stdout
    shown = show(ollama, "medical-mistral:tiny")
    assert shown["modelfile"].count(f"sha256-{sha256(model / GGUF)}\n") == 1
    assert shown["details"]["quantization_level"] == "Q4_K_M"
    request = {"model": "medical-mistral:tiny", "stream": False, "messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx.post(f"{ollama}/api/chat", timeout=120, json=request | {"options": {"num_predict": 4}})
    assert answer.status_code == 200 and answer.json()["done"], answer.text


@pytest.fixture(scope="module")
def several(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several") / "model"
    export(small_adapter, folder, ",".join(RECIPES), card="https://example.org/card")
    return folder


def test_every_type_of_a_folder_is_a_tag_of_one_name_and_answers(ollama: str, several: Path) -> None:
    """Ollama must see the type that was exported, and run it; the first is the name itself too."""
    done = command(str(several), "small:7b", OLLAMA_HOST=ollama.removeprefix("http://"))
    assert (done.returncode, done.stderr) == (0, "")
    names = {"small:7b": next(iter(RECIPES))} | {f"small:7b-{kind}": kind for kind in RECIPES}
    assert [line.split(" is registered")[0] for line in done.stdout.splitlines()[:-1]] == list(names)
    for name, kind in names.items():
        shown = show(ollama, name)
        assert shown["details"]["quantization_level"] == kind.upper()
        assert shown["modelfile"].count(f"sha256-{sha256(several / f'model.{kind}.gguf')}\n") == 1
        request = {"model": name, "stream": False, "messages": [{"role": "user", "content": "Hi"}]}
        answer = httpx.post(f"{ollama}/api/chat", timeout=120, json=request | {"options": {"num_predict": 4}})
        assert answer.status_code == 200 and answer.json()["done"], answer.text


def test_one_type_alone_is_registered_by_exactly_the_name(ollama: str, several: Path) -> None:
    done = command(str(several), "alone", "--type", "q8_0", OLLAMA_HOST=ollama.removeprefix("http://"))
    assert done.returncode == 0 and done.stdout.count(" is registered") == 1, done.stderr
    assert show(ollama, "alone")["details"]["quantization_level"] == "Q8_0"
    done = command(str(several), "alone", "--type", "q2_k", OLLAMA_HOST=ollama.removeprefix("http://"))
    assert done.returncode == 1 and f"error: {several}: does not hold q2_k (it holds q4_k_m, " in done.stderr


def test_the_modelfile_of_each_type_can_be_created_by_hand(ollama: str, several: Path) -> None:
    create_by_hand(ollama, several, "by-hand-q8", "Modelfile.q8_0")
    assert show(ollama, "by-hand-q8")["details"]["quantization_level"] == "Q8_0"


def test_ollama_show_prints_the_licence_and_where_the_card_is(ollama: str, several: Path) -> None:
    register(several, "licensed", Server(ollama))
    binary = _ollama_binary()
    assert binary is not None
    line = [binary, "show", "--license", "licensed"]
    done = subprocess.run(line, env=os.environ | {"OLLAMA_HOST": ollama}, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().splitlines() == [
        "Weights of the base (tiny, finetune/bases/tiny): Apache-2.0.",
        "For education only. Not medical advice: the answers were not reviewed by clinicians.",
        "Model card: https://example.org/card",
    ]
    assert "MESSAGE" not in show(ollama, "licensed")["modelfile"] and "messages" not in show(ollama, "licensed")


def test_a_folder_of_several_types_whose_second_modelfile_is_of_another_version(several: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(several, tmp_path / "model"))
    (copy / "Modelfile.q8_0").write_text("FROM ./model.q8_0.gguf")
    old = read_manifest(copy, "model")
    write_manifest(copy, "model", old["inputs"], old["settings"], old["counts"])
    with pytest.raises(UserError, match=r"its Modelfile\.q8_0 is from another version"):
        register_all(copy, {"never": "q8_0"}, Server("http://127.0.0.1:1"))


def test_the_rendered_modelfile_gives_the_same_fields(ollama: str, model: Path) -> None:
    register(model, "by-api", Server(ollama))
    create_by_hand(ollama, model, "by-hand")
    api, hand = show(ollama, "by-api"), show(ollama, "by-hand")
    for key in ("template", "system", "license", "details", "model_info", "capabilities"):
        assert api[key] == hand[key], key
    assert sorted(api["parameters"].splitlines()) == sorted(hand["parameters"].splitlines())


TEXTS = [
    'ends in "quotes"',
    'two "" here\n"',
    "tab\there",
    "Ménière 漢字 🫀",
    " edges ",
    "# no comment\n\nPARAMETER num_ctx 1",
    "FROM x",
]


def test_what_render_accepts_the_real_parser_reads_back(ollama: str, model: Path, tmp_path: Path) -> None:
    os.link(model / GGUF, tmp_path / GGUF)
    values = changed(system="\n".join(TEXTS), license='"', stop=["</s>", "a b", "#x"])
    (tmp_path / "Modelfile").write_bytes(render(values, GGUF).encode())
    create_by_hand(ollama, tmp_path, "odd-texts")
    assert differences(values, sha256(model / GGUF), show(ollama, "odd-texts")) == []


def create_by_hand(ollama: str, folder: Path, name: str, modelfile: str = "Modelfile") -> None:
    binary = _ollama_binary()
    assert binary is not None
    made = subprocess.run(
        [binary, "create", name, "-f", str(folder / modelfile)],
        env=os.environ | {"OLLAMA_HOST": ollama},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.write_bytes(m.read_bytes()[:-1]), "changed since it was made: model.q4_k_m.gguf"),
        (lambda m: m.unlink(), "changed since it was made: model.q4_k_m.gguf"),
        (lambda m: (m.parent / "Modelfile").write_text("FROM x"), "changed since it was made: Modelfile"),
        (lambda m: (m.parent / "manifest.json").unlink(), "not a finished model folder"),
    ],
)
def test_a_changed_folder_is_refused_before_any_call(copy: Path, change: Callable[[Path], Any], told: str) -> None:
    change(copy / GGUF)
    with pytest.raises(UserError, match=told):
        register(copy, "never", Server("http://127.0.0.1:1"))


def test_a_modelfile_of_other_code_is_refused(copy: Path) -> None:
    text = (copy / "Modelfile").read_text().replace("num_ctx 1024", "num_ctx 512")
    (copy / "Modelfile").write_text(text)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["outputs"]["Modelfile"] = sha256(copy / "Modelfile")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="another version of this project"):
        register(copy, "never", Server("http://127.0.0.1:1"))


@pytest.mark.parametrize(
    "name",
    ["no such name!", "", "a:b:c", "x:" + "t" * 79],  # the last is one, until a type is put behind it
)
def test_a_name_that_ollama_refuses_is_told_before_anything_is_sent(
    ollama: str, small_base: Path, tmp_path: Path, name: str
) -> None:
    make_small_adapter(small_base, tmp_path / "adapter", seed=len(name) + 70)  # weights that no test has sent yet
    export(tmp_path / "adapter", tmp_path / "model", "q4_k_m,q8_0")
    server, outputs = Server(ollama), read_manifest(tmp_path / "model", "model")["outputs"]
    with pytest.raises(UserError, match=r"refuses the name '.*'; take one such as"):
        register_all(tmp_path / "model", tags(name, ["q4_k_m", "q8_0"]), server)
    assert not any(server.has_blob(digest) for file, digest in outputs.items() if file.endswith(".gguf"))


SHOWN = {
    "template": changed()["template"], "system": changed()["system"], "license": changed()["license"],
    "parameters": 'stop  "</s>"\ntemperature 0\ntop_p 0.9\nrepeat_penalty 1\nfrequency_penalty 0.5\nseed 0\nnum_ctx 1024\nnum_predict 512',
    "modelfile": f"# a comment\nFROM /models/blobs/sha256-{'ab' * 32}\nPARAMETER seed 0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("template", "{{ .Prompt }}", ["template is '{{ .Prompt }}'"]),
        ("system", None, ["system is ''"]),
        ("license", "MIT", ["license is 'MIT'"]),
        ("parameters", SHOWN["parameters"].replace("seed 0", "seed 7"), ["seed is [7.0], sent [0]"]),
        ("parameters", SHOWN["parameters"] + "\ntop_k 40", ["top_k is [40.0], sent []"]),
        ("parameters", SHOWN["parameters"] + '\nstop "<|im_end|>"', ["stop is ['</s>', '<|im_end|>'], sent ['</s>']"]),
        ("parameters", SHOWN["parameters"].replace("\nnum_ctx 1024", ""), ["num_ctx is [], sent [1024]"]),
        ("modelfile", "FROM /models/blobs/sha256-" + "cd" * 32, ["the weights are"]),
        ("modelfile", None, ["the weights are ''"]),
    ],
)
def test_any_difference_from_what_was_sent_is_told(key: str, value: str | None, told: list[str]) -> None:
    assert differences(changed(), "ab" * 32, SHOWN) == []
    shown = {k: v for k, v in (SHOWN | {key: value}).items() if v is not None}
    found = differences(changed(), "ab" * 32, shown)
    assert len(found) == len(told) and all(text in line for text, line in zip(told, found, strict=True)), found


SUCCESS = '{"status":"writing manifest"}\n{"status":"success"}\n'
WELL: dict[str, list[Reply]] = {
    "/api/blobs": [(200, "")],
    "/api/create": [(200, SUCCESS)],
    "/api/show": [(200, {})],
    "/api/tags": [(200, {"models": []})],
}
FAILING: list[tuple[str, list[Reply], str]] = [
    ("/api/blobs", [BUSY], "HTTP 503: server busy, please try again; wait until it is idle"),
    ("/api/blobs", [CLOSE], "does not look for the weights: Server disconnected"),
    ("/api/blobs", [(404, ""), (400, {"error": "digest mismatch"})], "the weights: HTTP 400: digest mismatch"),
    ("/api/create", [(200, '{"status":"parsing GGUF"}\n{"error":"invalid file magic"}\n')], "m: invalid file magic"),
    ("/api/create", [(200, '{"error":"invalid file magic"}')], "m: HTTP 200: invalid file magic"),
    ("/api/create", [(200, '{"status":"parsing GGUF"}\n')], "before `success`"),
    ("/api/create", [(200, "")], "before `success`"),
    ("/api/create", [(200, "<html>")], "not an answer of Ollama's"),
    ("/api/create", [CLOSE], "does not create m: Server disconnected"),
    ("/api/create", [(500, "boom")], "HTTP 500: boom"),
    ("/api/show", [(200, {}), (404, {"error": "model not found"})], "has no model 'm'"),
    ("/api/show", [(200, [])], "HTTP 200: []"),
    ("/api/show", [(200, {})], "does not hold m as it was sent"),
]


@pytest.mark.parametrize(("path", "replies", "told"), FAILING)
def test_a_failing_server_is_one_line(model: Path, path: str, replies: list[Reply], told: str) -> None:
    given = WELL | {path: replies}
    with speaking(lambda called, number: in_turn(given, called, number)) as (url, _):
        with pytest.raises(UserError) as error:
            register(model, "m", Server(url, pauses=SHORT))
        assert told in str(error.value) and "\n" not in str(error.value) and url in str(error.value)


def test_a_model_that_is_not_listed_after_all_is_one_line(ollama: str, model: Path) -> None:
    register(model, "listed", Server(ollama))
    given = WELL | {"/api/show": [(200, show(ollama, "listed"))]}
    with (
        speaking(lambda called, number: in_turn(given, called, number)) as (url, _),
        pytest.raises(UserError, match="does not list m after creating it"),
    ):
        register(model, "m", Server(url, pauses=SHORT))


def test_the_hint_of_a_task_without_an_example_is_neutral(ollama: str, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    task = folder / "task.toml"
    task.write_text("".join(line for line in task.read_text().splitlines(True) if not line.startswith("example")))
    old = read_manifest(folder, "model")
    write_manifest(folder, "model", old["inputs"], old["settings"], old["counts"])
    done = command(str(folder), "neutral", OLLAMA_HOST=ollama.removeprefix("http://"))
    assert done.returncode == 0 and done.stdout.endswith('next: ollama run neutral "YOUR REQUEST"\n'), done.stderr


def test_ollama_not_running_is_told_at_once(model: Path) -> None:
    done = command(str(model), "m", "--host", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no Ollama answers at http://127.0.0.1:1 ([Errno 111] Connection refused); "
        "start it with `ollama serve`, or set OLLAMA_HOST to its address\n"
    )

"""A run's folder of a small random model: every step is asked alike, and the step that changed answers is the one named."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.contract import load_contract
from eval.attribute import __main__ as attribute
from eval.attribute import steps
from eval.attribute.deployment import read_deployment
from eval.attribute.steps import open_steps
from models.ollama_server import Server
from plumbing.errors import UserError, run
from plumbing.handover import read_manifest
from quantize.__main__ import main as quantize
from quantize.register import register
from tests.conftest import _ollama_binary, make_small_adapter, make_small_base, running_ollama
from tests.eval.attribute.test_bounds import Edit, make_loud, no_lora, same, spoilt
from tests.finished_dataset import make_own, make_terminology

NOBODY = "127.0.0.1:1"  # no Ollama answers there
STEPS = ["base, torch", "adapter, torch", "f16 GGUF", "q4_k_m GGUF", "q4_k_m, Ollama", "Ollama, JSON Schema"]
LOGITS = ["logits of model.f16.gguf against torch", "logits of model.q4_k_m.gguf against model.f16.gguf"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attribute") / "dataset"
    make_terminology(folder)
    return folder


def export(adapter: Path, out: Path, kind: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quantize", str(adapter), "--out", str(out), "--type", kind])
        quantize()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, and beside it the base and another adapter; the model says something: its embeddings are untied."""
    place = tmp_path_factory.mktemp("attribute")
    base = make_small_base(place / "base", tie_word_embeddings=False, initializer_range=0.2)
    adapter = make_small_adapter(base, place / "run" / "adapter")
    make_small_adapter(base, place / "other", seed=2)
    export(adapter, place / "run" / "model-f16", "f16")
    export(adapter, place / "run" / "model", "q4_k_m")
    return place / "run"


@pytest.fixture
def brief(made: Path, tmp_path: Path) -> Path:
    """A copy whose answers end after 3 tokens: rounding has not yet parted two of one adapter."""
    copy = shutil.copytree(made, tmp_path / "run")
    for model in ("model", "model-f16"):
        shorten(copy / model)
    return copy


def shorten(model: Path) -> None:
    text = (model / "Modelfile").read_text()
    assert "num_predict 512" in text
    (model / "Modelfile").write_text(text.replace("num_predict 512", "num_predict 3"))


class Outcome:
    """What `python -m eval.attribute ...` did."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object) -> None:
        monkeypatch.setattr(sys, "argv", ["attribute", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            run(attribute.main)
        self.code = stopped.value.code
        self.out, self.err = capsys.readouterr()


@pytest.fixture
def attributed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path) -> Any:
    """Run it over a folder; its attribute.json, when it came to an end."""

    def call(folder: Path, *args: object, limit: int = 3, host: str = NOBODY) -> dict[str, Any]:
        out = tmp_path / "out"
        done = Outcome(
            monkeypatch, capsys, folder, "--data", data, "--limit", limit, "--out", out, "--host", host, *args
        )
        assert done.code in (0, 2), done.err
        found: dict[str, Any] = json.loads((out / "attribute.json").read_text())
        assert (done.code == 2) == (found["export"] == "unfaithful") == any(a["faults"] for a in found["agreements"])
        if "--json" in args:
            assert json.loads(done.out) == found
        else:
            assert (out / "attribute.md").read_text().split("\n\n", 1)[1] in done.out
        return found | {"stderr": done.err}

    return call


def rows(folder: Path, number: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"answers-{number}.jsonl").open(encoding="utf-8")]


def test_every_step_is_asked_the_same(ollama: str, made: Path, attributed: Any, tmp_path: Path) -> None:
    found = attributed(made, host=ollama)
    assert [step["step"] for step in found["steps"]] == STEPS and found["left_out"] == {}
    assert [step["before"] for step in found["steps"]] == ["", *STEPS[:-1]]
    assert [found["options"][name] for name in ("num_predict", "num_ctx", "temperature")] == [512, 1024, 0]
    answers = [rows(tmp_path / "out", number) for number in range(1, 7)]
    assert all([row["id"] for row in step] == [row["id"] for row in answers[0]] for step in answers)
    assert all(row["error_kind"] == "" and row["answer_tokens"] > 0 for step in answers for row in step)
    lengths = [[row["prompt_tokens"] for row in step] for step in answers]
    assert all(length == lengths[0] for length in lengths), "one tokenizer, one prompt"
    assert not any("not the same prompt" in note for note in found["notes"])
    assert [row["text"][:1] == "{" for row in answers[4] + answers[5]] == [False] * 3 + [True] * 3
    assert "Ollama, JSON Schema (3 of 3)" in found["verdict"][1]
    assert found["agreements"][0]["kl_mean"] < 0.01 < found["agreements"][1]["kl_mean"]
    assert not [m for m in httpx.get(f"{ollama}/api/tags").json()["models"] if m["name"].startswith("attribute-")]
    assert read_manifest(tmp_path / "out", "attribute")["counts"] == {"requests": 3, "steps": 6, "left_out": 0}


def test_every_step_is_sent_the_same_options(ollama: str, made: Path, data: Path) -> None:
    deployment = read_deployment(made, load_contract(data / "task.toml"))
    deployment = replace(deployment, options=deployment.options | {"num_predict": 7, "repeat_last_n": 9})
    with open_steps(deployment, ollama, None) as steps:
        for step in steps:
            assert step.open is not None
            with step.open() as backend:
                assert dict(backend.options) == deployment.options, step.name


def test_one_that_is_registered_is_asked_by_name(ollama: str, brief: Path, made: Path, attributed: Any) -> None:
    register(made / "model-f16", "attributed-f16", Server(ollama))
    found = attributed(brief, "--model", "attributed-f16", host=ollama, limit=2)
    assert "q4_k_m, Ollama: the weights that are served are not those of model/" in found["notes"]
    assert "attributed-f16:latest" in {m["name"] for m in httpx.get(f"{ollama}/api/tags").json()["models"]}


def test_the_step_that_changed_answers_is_named(brief: Path, made: Path, attributed: Any) -> None:
    sound = attributed(brief)
    shutil.rmtree(brief / "model-f16")
    export(made.parent / "other", brief / "model-f16", "f16")
    planted = attributed(brief)
    step = STEPS.index("f16 GGUF")
    assert sound["steps"][step]["differing"] == [] and len(planted["steps"][step]["differing"]) == 3
    assert "f16 GGUF (3 of 3)" in planted["verdict"][1] and "f16 GGUF (" not in sound["verdict"][1]
    assert sound["agreements"][0]["kl_mean"] < 0.01 < 0.1 < planted["agreements"][0]["kl_mean"]
    line = "model-f16/ was not exported from adapter/ as it is now, but from another adapter"
    assert line in planted["notes"] and line not in sound["notes"]


def test_an_f16_file_of_the_model_itself_is_the_one_that_is_compared(brief: Path, attributed: Any) -> None:
    shutil.rmtree(brief / "model")
    shutil.copytree(brief / "model-f16", brief / "model")
    shutil.rmtree(brief / "model-f16")
    found = attributed(brief)
    assert [step["step"] for step in found["steps"]] == STEPS[:3] and "exporting" not in found["stderr"]
    assert [one["measured"] for one in found["agreements"]] == ["model.f16.gguf"] == list(found["weights"])
    assert list(found["left_out"]) == ["f16, Ollama", STEPS[5]]


@pytest.mark.parametrize(("edit", "export"), [(same, "faithful"), (no_lora, "unfaithful")])
def test_exit_code_2_is_a_missed_bound(tmp_path: Path, attributed: Any, edit: Edit, export: str) -> None:
    adapter, base = make_loud(tmp_path / "loud")
    model = spoilt((adapter, base), tmp_path / "model", edit)
    shorten(model)
    found = attributed(model, "--adapter", adapter, "--base", base)
    assert found["export"] == export
    assert "LoRA left out" in found["agreements"][0]["bound"]["why"]


def test_a_model_folder_alone_needs_its_adapter(brief: Path, tmp_path: Path, attributed: Any) -> None:
    """The f16 GGUF that it lacks is exported for the comparison, and removed again."""
    model = Path(shutil.copytree(brief / "model", tmp_path / "elsewhere" / "shipped"))
    base = json.loads((brief / "adapter" / "manifest.json").read_text())["settings"]["base_folder"]
    found = attributed(model, "--adapter", brief / "adapter", "--base", base, "--json", limit=1)
    assert [step["step"] for step in found["steps"]] == STEPS[:4] and "exporting model.f16.gguf" in found["stderr"]
    assert [one["reference"] for one in found["agreements"]] == ["torch", "model.f16.gguf"]
    assert found["weights"].items() <= read_manifest(model, "model")["outputs"].items()
    assert [path.name for path in model.parent.iterdir()] == ["shipped"]
    inputs = read_manifest(tmp_path / "out", "attribute")["inputs"]
    assert inputs.keys() == {"dataset", "adapter", "model"}


@pytest.mark.parametrize(
    ("gone", "left_out", "steps"),
    [
        ("adapter", [*STEPS[:2], *STEPS[4:], LOGITS[0]], STEPS[2:4]),
        ("model-f16", STEPS[4:], STEPS[:4]),
        ("model", ["quantised GGUF", "quantised, Ollama", STEPS[5]], STEPS[:3]),
    ],
)  # fmt: skip
def test_a_missing_folder_is_named(
    brief: Path, attributed: Any, gone: str, left_out: list[str], steps: list[str]
) -> None:
    shutil.rmtree(brief / gone)
    found = attributed(brief, limit=1)
    assert list(found["left_out"]) == left_out and all(found["left_out"].values())
    assert ("exporting model.f16.gguf" in found["stderr"]) == (gone == "model-f16")
    assert [step["step"] for step in found["steps"]] == steps
    assert [step["before"] for step in found["steps"]] == ["", *steps[:-1]]


@pytest.mark.parametrize(
    ("package", "left_out"), [("peft", [*STEPS[:2], LOGITS[0]]), ("llama_cpp", [*STEPS[2:4], *LOGITS])]
)
def test_a_missing_package_is_named(
    brief: Path, attributed: Any, monkeypatch: pytest.MonkeyPatch, package: str, left_out: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python knows what cannot be imported
    found = attributed(brief, limit=1)
    assert set(found["left_out"]) == {*left_out, *STEPS[4:]}
    assert f"needs {package.replace('_', '-')}".removesuffix("-cpp") in found["left_out"][left_out[0]]


def drop(*names: str) -> Any:
    return lambda folder: [shutil.rmtree(folder / name) for name in names]


def move(one: str, other: str) -> Any:
    def change(folder: Path) -> None:
        shutil.rmtree(folder / other)
        shutil.copytree(folder / one, folder / other)

    return change


def touch(name: str) -> Any:
    return lambda folder: (folder / name).write_bytes(b"\0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("adapter", "model-f16", "model"), "none of adapter, model-f16, model in it"),
        (drop("adapter", "model"), "only 1 step can be run; a comparison needs two; left out: base, torch: "),
        (move("adapter", "model"), "made by the stage 'adapter', expected what the stage 'model' makes"),
        (move("model", "model-f16"), "its type is q4_k_m, expected f16"),
        (touch("adapter/adapter_model.safetensors"), "changed since it was made: adapter_model.safetensors"),
        (touch("model/model.q4_k_m.gguf"), "not the file that was exported"),
        (lambda folder: shutil.rmtree(folder), "no such run; `make demo` makes one"),
    ],
)
def test_bad_input_is_one_line(brief, data, tmp_path, monkeypatch, capsys, change, words) -> None:  # type: ignore[no-untyped-def]
    change(brief)
    done = Outcome(
        monkeypatch, capsys, brief, "--data", data, "--limit", 1, "--out", tmp_path / "out", "--host", NOBODY
    )
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code == 1 and len(errors) == 1 and words in errors[0] and "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_another_tasks_dataset_is_one_line(brief, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    make_own(tmp_path / "dataset")
    done = Outcome(monkeypatch, capsys, brief, "--data", tmp_path / "dataset", "--host", NOBODY)
    assert done.code == 1 and "made for the task 'terminology', the dataset is for 'own_cards'" in done.err


def test_what_cannot_be_registered_is_one_line(ollama, brief, data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    done = Outcome(monkeypatch, capsys, brief, "--data", data, "--out", tmp_path / "out", "--host", ollama)
    assert done.code == 1 and "changed since it was made: Modelfile" in done.err and done.err.count("\n") == 1
    done = Outcome(monkeypatch, capsys, brief, "--data", data, "--host", ollama, "--model", "nobody")
    assert done.code == 1 and "has no model 'nobody'" in done.err


def test_a_server_that_is_gone_at_the_end_hides_no_error(ollama: str, made: Path, data: Path) -> None:
    binary = _ollama_binary()
    if binary is None:
        pytest.skip("no Ollama of this machine's own to end")
    deployment = read_deployment(made, load_contract(data / "task.toml"))
    server = running_ollama(binary)
    with server as url, pytest.raises(UserError, match="no Ollama answers"), open_steps(deployment, url, None) as steps:
        server.process.kill()
        server.process.wait(20)
        assert steps[4].open is not None
        with steps[4].open():
            pass


def test_another_base_is_left_out(brief: Path, made: Path, data: Path, tmp_path: Path) -> None:
    other = make_small_base(tmp_path / "base", seed=9)
    manifest = json.loads((brief / "adapter" / "manifest.json").read_text())
    manifest["settings"]["base_folder"] = str(other)
    (brief / "adapter" / "manifest.json").write_text(json.dumps(manifest))
    deployment = read_deployment(brief, load_contract(data / "task.toml"))
    with open_steps(deployment, f"http://{NOBODY}", None) as steps:
        assert "not the base that" in steps[0].missing and steps[0].missing == steps[1].missing


def test_too_little_memory_leaves_out_the_answers_of_torch(
    brief: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "available_memory", lambda: 700_000_000)
    with open_steps(read_deployment(brief, load_contract(data / "task.toml")), f"http://{NOBODY}", None) as found:
        assert found[0].missing == found[1].missing and "MB of memory, 700 MB are available" in found[0].missing

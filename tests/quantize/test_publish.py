"""`python -m quantize.publish`: what the real huggingface_hub client sends to a Hub of our own, and what it never sends."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from contract.base import load_base
from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest, sha256, write_manifest
from quantize.card import front_matter
from quantize.export import export
from quantize.publish import collect, main, push
from tests.conftest import ROOT
from tests.hub_server import READ_TOKEN, Hub

REPO = "writer/terms"
FIRST, SECOND = "model.q4_k_m.gguf", "model.q8_0.gguf"


@pytest.fixture(scope="module")
def made(small_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model folder of two types, and its adapter whose config names the base by a path, as after a training."""
    run = tmp_path_factory.mktemp("run")
    adapter = Path(shutil.copytree(small_adapter, run / "adapter"))
    base = read_manifest(adapter, "adapter")["settings"]["base_folder"]
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == base
    export(adapter, run / "model")
    export(adapter, run / "second", "q8_0")
    shutil.copyfile(run / "second" / SECOND, run / "model" / SECOND)
    shutil.copyfile(run / "second" / "Modelfile", run / "model" / "Modelfile.q8_0")
    rewrite(run / "model", types=["q4_k_m", "q8_0"])
    shutil.rmtree(run / "second")
    return run / "model", adapter


def rewrite(folder: Path, **settings: Any) -> None:
    old = read_manifest(folder, "model")
    write_manifest(folder, "model", old["inputs"], old["settings"] | settings, old["counts"])


@pytest.fixture
def folder(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the model folder, to be spoilt."""
    return Path(shutil.copytree(made[0], tmp_path / "model"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    with Hub(lfs=("*.gguf", "*.safetensors")) as server:
        for name, value in [
            ("ENDPOINT", server.url), ("HF_HUB_OFFLINE", False), ("HF_TOKEN_PATH", str(tmp_path / "none")),
            ("HF_HUB_DISABLE_XET", True),
        ]:  # fmt: skip
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield server


def report(folder: Path, weights: str, share: float = 0.9, condition: str = "served", **extra: Any) -> Path:
    """A report folder with what the card reads of it."""
    folder.mkdir()
    rate = {"count": 36, "n": 40, "share": share, "low": 0.77, "high": 0.96}
    table = {"backend": "ollama", "judged": 40, "failed": 0, "adherence": rate, "named": rate, "condition": condition}
    (folder / "report.json").write_text(json.dumps(table | extra))
    write_manifest(folder, "report", {}, {"weights": weights, "split": "test"}, {})
    return folder


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "quantize.publish", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip


def test_everything_is_published_in_one_commit_and_is_whole(made: tuple[Path, Path], hub: Hub, tmp_path: Path) -> None:
    folder, adapter = made
    address = push(collect(folder, REPO, adapter, []), REPO)
    repo = hub.repos["model", REPO]
    assert len(repo.commits) == 1 and not repo.private and address == f"{hub.url}/models/{REPO}/commit/{repo.sha}"
    assert set(repo.files) == {
        FIRST, SECOND, "Modelfile", "Modelfile.q8_0", "task.toml", "base.toml", "manifest.json", "README.md",
        *(f"adapter/{name}" for name in {"manifest.json", *read_manifest(adapter, "adapter")["outputs"]} - {"README.md"}),
    }  # fmt: skip
    for name, content in repo.files.items():
        (tmp_path / "got" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "got" / name).write_bytes(content)
    for where, stage in ((tmp_path / "got", "model"), (tmp_path / "got" / "adapter", "adapter")):
        check_outputs(where, read_manifest(where, stage))  # also after paths were taken out
    assert (tmp_path / "got" / FIRST).read_bytes() == (folder / FIRST).read_bytes()
    config = json.loads(repo.files["adapter/adapter_config.json"])
    assert config["base_model_name_or_path"] == "finetune/bases/tiny" and config["r"] == 8


def test_no_path_of_this_machine_is_published(made: tuple[Path, Path], hub: Hub) -> None:
    folder, adapter = made
    base = read_manifest(folder, "model")["settings"]["base_folder"]
    push(collect(folder, REPO, adapter, []), REPO)
    for name, content in hub.repos["model", REPO].files.items():
        for path in (base, str(folder.parent), str(ROOT), str(Path.home()), "base_folder"):
            assert path.encode() not in content, f"{path} in {name}"


def test_a_path_that_hides_elsewhere_is_refused(folder: Path) -> None:
    text = (folder / "Modelfile").read_text()
    (folder / "Modelfile").write_text(text + f"# made in {folder}\n")
    rewrite(folder)
    with pytest.raises(UserError, match=r"Modelfile: names .*a path of this machine"):
        collect(folder, REPO, None, [])


def test_what_the_hub_has_is_not_sent_again(folder: Path, hub: Hub) -> None:
    hub.faults["commit"] = [400]  # the weights are there, the commit is not
    with pytest.raises(UserError, match="not published"):
        push(collect(folder, REPO, None, []), REPO)
    assert hub.calls.count("upload") == 2 and not hub.repos["model", REPO].commits
    push(collect(folder, REPO, None, []), REPO)
    assert hub.calls.count("upload") == 2 and len(hub.repos["model", REPO].commits) == 1
    push(collect(folder, REPO, None, []), REPO)
    assert hub.calls.count("upload") == 2 and len(hub.repos["model", REPO].commits) == 1  # nothing new
    (folder / SECOND).unlink()
    (folder / "Modelfile.q8_0").unlink()
    rewrite(folder, types=["q4_k_m"])
    push(collect(folder, REPO, None, []), REPO)
    assert hub.calls.count("upload") == 2 and set(hub.repos["model", REPO].commits[1].added) == {"README.md", "manifest.json"}  # fmt: skip


def test_a_push_that_broke_off_between_two_files_sends_the_other_one(folder: Path, hub: Hub) -> None:
    hub.faults["upload"] = [400]
    with pytest.raises(UserError, match="run the same command again: it sends what is missing"):
        push(collect(folder, REPO, None, []), REPO)
    sent = set(hub.objects)
    push(collect(folder, REPO, None, []), REPO)
    assert set(hub.objects) == {sha256(folder / FIRST), sha256(folder / SECOND)} and sent <= set(hub.objects)
    assert hub.calls.count("upload") == 3 - (not sent)  # the one that failed, and each file once


def test_private_is_private_and_says_so_when_it_cannot_be(folder: Path, hub: Hub) -> None:
    files = collect(folder, REPO, None, [])
    push(files, REPO, private=True)
    assert hub.repos["model", REPO].private
    push(files, "writer/open")
    with pytest.raises(UserError, match="is a public repository already"):
        push(files, "writer/open", private=True)


def test_the_card_holds_what_was_measured_of_these_weights(made: tuple[Path, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    digests = {name: sha256(folder / name) for name in (FIRST, SECOND)}
    reports = [report(tmp_path / "a", digests[SECOND], 0.975), report(tmp_path / "b", digests[FIRST], 0.9)]
    parity = {"equal": True, "conversations": 31, "ollama": "0.34.2", "gguf_sha256": digests[FIRST], "counts": {}}
    (tmp_path / "parity.json").write_text(json.dumps(parity))
    compared = {
        "measured": "model.f16.gguf", "reference": "torch", "texts": 16, "other_ids": [], "kl_mean": 1.3e-5,
        "kl_max": 1e-4, "top1": 0.999, "faults": [],
    }  # fmt: skip
    attribute = tmp_path / "attribute" / "attribute.json"
    attribute.parent.mkdir()
    attribute.write_text(json.dumps({"export": "faithful", "weights": digests, "agreements": [compared]}))
    arguments = [str(folder), "--repo", REPO, "--adapter", str(made[1]), "--report", *map(str, reports), "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["publish", *arguments])
    main()
    card = capsys.readouterr().out
    front = ModelCard(card).data
    assert front.license == "apache-2.0" and front.language == ["en"] and "gguf" in front.tags
    assert front.base_model is None  # a folder's path is not a repository of the Hub
    assert "not medical advice" in card and f"hf download {REPO}" in card
    assert "| q4_k_m | 90.0 % | 77.0 to 96.0 % | 90.0 % | 40 | test | ollama |\n| q8_0 | 97.5 % |" in card
    assert "equal in text and token ids over 31 conversations (Ollama 0.34.2)" in card
    assert "**faithful**" in card and "| model.f16.gguf | torch | 16 of 16 | 1.3e-05 | 0.0001 | 99.90 % |" in card
    assert f"| {SECOND} | q8_0 | " in card and f"{digests[SECOND]} | Modelfile.q8_0 |" in card
    attribute.write_text(json.dumps({"export": "faithful", "weights": {}, "agreements": []}))
    (tmp_path / "parity.json").write_text(json.dumps(parity | {"gguf_sha256": "0" * 64}))
    main()
    assert capsys.readouterr().out.count(": not measured.") == 2  # those were of other weights
    attribute.write_text(json.dumps({"export": "not measured", "weights": digests, "agreements": [compared]}))
    main()
    assert capsys.readouterr().out.count(": not measured.") == 2  # a comparison was left out


def test_the_card_is_about_the_task_of_the_model(folder: Path) -> None:
    medical = collect(folder, REPO, None, [])["README.md"].decode()
    assert 'ollama run terms "Explain the medical term: Hypertension"\n' in medical and "medical advice" in medical
    text = """
name = "flashcard"
about = "You write study cards."
example = 'Make a card for "heart".'
heading = "{title}: "
separator = "\\n"
section = [ { name = "term", title = "Term", kind = "prose" } ]
"""
    (folder / "task.toml").write_text(text)
    rewrite(folder)
    card = collect(folder, REPO, None, [])["README.md"].decode()
    assert 'ollama run terms "Make a card for \\"heart\\"."\n' in card and "You write study cards." in card
    assert [word for word in ("medic", "clinic", "dosing", "erminology", "Hypertension") if word in card] == []
    (folder / "task.toml").write_text(text.replace("example", "# example"))
    rewrite(folder)
    assert 'ollama run terms "YOUR REQUEST"\n' in collect(folder, REPO, None, [])["README.md"].decode()


def test_a_base_of_the_hub_is_linked_by_its_name() -> None:
    text = front_matter(load_base("mistral_7b_instruct_v0_3"), "t", {})
    front = ModelCard(f"---\n{text}\n---\n").data
    assert front.base_model == "mistralai/Mistral-7B-Instruct-v0.3"
    assert front["base_model_relation"] == "quantized" and "language" not in text


def test_a_dry_run_contacts_nothing_and_needs_no_token(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run(folder, "--repo", REPO, "--dry-run", HF_ENDPOINT=url, HF_TOKEN="", HF_HOME=str(tmp_path))
    assert done.returncode == 0 and "# terminology on tiny" in done.stdout and "would push" in done.stderr, done.stderr
    assert "No adherence was measured for this card." in done.stdout


def test_each_thing_amiss_is_one_line(made: tuple[Path, Path], folder: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        own = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_writer", "HF_HUB_OFFLINE": "0"}
        for arguments, extra, said in [
            ((folder, "--repo", REPO), {"HF_TOKEN": ""}, "no Hugging Face token"),
            ((folder, "--repo", REPO), {}, "no answer from http"),
            ((folder, "--repo", "terms"), {}, "expected OWNER/NAME"),
            ((made[1], "--repo", REPO), {}, "expected what the stage 'model' makes"),
            ((tmp_path / "none", "--repo", REPO), {}, "not a finished model folder"),
        ]:
            done = run(*arguments, **own | extra)
            assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
            assert done.stderr.startswith("error: ") and said in done.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("attribute/attribute.json", {"weights": {}, "export": "faithful"}),
        ("attribute/attribute.json", {"weights": [], "export": "faithful", "agreements": []}),
        ("parity.json", {"gguf_sha256": "0", "equal": True, "conversations": 3, "counts": [1]}),
        ("parity.json", []),
    ],
)
def test_a_measurement_that_is_none_is_one_line(folder: Path, name: str, told: object) -> None:
    (folder.parent / name).parent.mkdir(exist_ok=True)
    (folder.parent / name).write_text(json.dumps(told))
    with pytest.raises(UserError, match=rf"{name}: not written by this project; make it again or move it away"):
        collect(folder, REPO, None, [])


def test_what_is_not_of_this_model_is_refused(made: tuple[Path, Path], folder: Path, tmp_path: Path) -> None:
    right = sha256(folder / FIRST)
    with pytest.raises(UserError, match="measured on other weights"):
        collect(folder, REPO, None, [report(tmp_path / "other", "0" * 64)])
    with pytest.raises(UserError, match="asked under 'bare'"):
        collect(folder, REPO, None, [report(tmp_path / "bare", right, condition="bare")])
    with pytest.raises(UserError, match=r"no usable report\.json"):
        collect(folder, REPO, None, [report(tmp_path / "broken", right, adherence=None)])
    edited = report(tmp_path / "edited", right)
    (edited / "report.json").write_text((edited / "report.json").read_text().replace("0.9", "1.0"))
    with pytest.raises(UserError, match="changed since it was made"):
        collect(folder, REPO, None, [edited])
    adapter = Path(shutil.copytree(made[1], tmp_path / "adapter"))
    (adapter / "adapter_model.safetensors").write_bytes(b"other")
    trained = read_manifest(adapter, "adapter")
    write_manifest(adapter, "adapter", trained["inputs"], trained["settings"], {})
    with pytest.raises(UserError, match="not the adapter that"):
        collect(folder, REPO, adapter, [])
    with (folder / FIRST).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"changed since it was made: model\.q4_k_m\.gguf"):
        collect(folder, REPO, None, [])


@pytest.mark.parametrize(("token", "said"), [(READ_TOKEN, "may not write there"), ("hf_none", "the token is not valid"), ("hf x", "holds a blank")])  # fmt: skip
def test_a_token_that_will_not_do(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, said: str) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=said) as caught:
        push(collect(folder, REPO, None, []), REPO)
    assert token not in str(caught.value) and not hub.repos

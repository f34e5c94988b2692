"""Pushing: what the real huggingface_hub client sends to a Hub of our own, and one line for each thing amiss."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_gen.publication import left_out, push
from data_gen.publish import main
from plumbing.errors import UserError
from plumbing.handover import read_manifest, write_manifest
from tests.conftest import ROOT
from tests.finished_dataset import contents, make_own, rows_of
from tests.hub_server import READ_TOKEN, Hub, Repo

REPO = "writer/terms"
CARD = "README.md"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished dataset folder with a folder in it, and its sha256 as data_gen printed it."""
    folder = tmp_path_factory.mktemp("own") / "dataset"
    digest = make_own(folder).split("sha256 ")[1].split()[0]
    (folder / "licences").mkdir()
    (folder / "licences" / "MIT.txt").write_text("Permission is hereby granted")
    write_manifest(folder, "dataset", {}, {}, {})
    return folder, digest


@pytest.fixture
def folder(made: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy, to be spoilt."""
    return Path(shutil.copytree(made[0], tmp_path / "dataset"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub that this process's client talks to, as it would with HF_ENDPOINT and HF_TOKEN set when it starts."""
    from huggingface_hub import constants

    with Hub() as server:
        for name, value in [
            ("ENDPOINT", server.url),
            ("HF_HUB_OFFLINE", False),
            ("HF_TOKEN_PATH", str(tmp_path / "none")),
        ]:
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield server


def test_a_push_publishes_every_byte_in_one_commit(made: tuple[Path, str], hub: Hub) -> None:
    folder, digest = made
    address = push(folder, REPO)
    repo = hub.repos["dataset", REPO]
    assert repo.files == contents(folder) and len(repo.commits) == 1 and not repo.private
    assert {CARD, "licences/MIT.txt", "certificate.json", "lengths.png", "manifest.json"} < set(repo.files)
    assert repo.commits[0].message == f"Dataset with sha256 {digest}" and len(digest) == 64
    assert address == f"{hub.url}/datasets/{REPO}/commit/{repo.sha}"
    assert push(folder, REPO).endswith(repo.sha) and len(repo.commits) == 1  # nothing new: no second commit


def test_a_second_push_replaces_what_changed_and_keeps_other_files(folder: Path, hub: Hub) -> None:
    push(folder, "terms")  # without an owner: the token's own
    repo = hub.repos["dataset", REPO]
    repo.commits[0].added["NOTES.md"] = b"written on the Hub"
    (folder / CARD).write_text((folder / CARD).read_text() + "\nMore.\n")
    write_manifest(folder, "dataset", {}, {}, {})
    push(folder, "terms")
    assert set(repo.commits[1].added) == {CARD, "manifest.json"} and repo.commits[1].deleted == []
    assert repo.files == contents(folder) | {"NOTES.md": b"written on the Hub"}


def test_what_was_pushed_can_be_loaded_by_its_name(folder: Path, hub: Hub, tmp_path: Path) -> None:
    push(folder, REPO, private=True)
    assert hub.repos["dataset", REPO].private
    script = f"import datasets, json; d = datasets.load_dataset({REPO!r}); print(json.dumps({{s: d[s].to_list() for s in d}}))"
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | variables, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == rows_of(folder)


def test_files_that_data_gen_did_not_write_stay_at_home(folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (folder / ".env").write_text("SECRET=1")
    monkeypatch.setattr(sys, "argv", ["publish", str(folder), "--push", REPO])
    main()
    assert ".env" not in hub.repos["dataset", REPO].files and left_out(folder) == [".env"]
    assert "left out, as manifest.json does not name it: .env\n" in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["*.jsonl", "*"])
def test_large_files_go_by_lfs(folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.lfs = (pattern,)
    push(folder, REPO)
    assert hub.repos["dataset", REPO].files == contents(folder) and hub.calls.count("upload") >= 3


def test_the_hub_of_the_tests_serves_models_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants, snapshot_download

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    model = tmp_path / "model"
    model.mkdir()
    (model / "m.gguf").write_bytes(bytes(range(256)) * 5000)
    (model / CARD).write_text("---\nlicense: apache-2.0\n---\n")
    with Hub(lfs=("*.gguf",)) as server:
        api = HfApi(server.url, token="hf_writer")
        api.create_repo("writer/m", private=True)
        api.upload_folder(repo_id="writer/m", folder_path=model)
        where = {"cache_dir": tmp_path / "cache", "endpoint": server.url}
        got = Path(snapshot_download("writer/m", token="hf_writer", **where))
        assert {name: (got / name).read_bytes() for name in contents(model)} == contents(model)
        assert list(server.objects.values()) == [(model / "m.gguf").read_bytes()]
        assert api.file_exists("writer/m", "m.gguf") and not api.file_exists("writer/m", "none.gguf")
        api.delete_file("m.gguf", "writer/m")
        assert list(server.repos["model", "writer/m"].files) == [CARD]


def constant(name: str, value: object) -> Callable[[Path, Hub, pytest.MonkeyPatch], None]:
    from huggingface_hub import constants

    return lambda folder, hub, patch: patch.setattr(constants, name, value)


def spoil(name: str, content: str | None) -> Callable[[Path, Hub, pytest.MonkeyPatch], None]:
    """A file of another content, or none, in a folder whose manifest agrees."""

    def do(folder: Path, hub: Hub, patch: pytest.MonkeyPatch) -> None:
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
        write_manifest(folder, "dataset", {}, {}, {})

    return do


AMISS: dict[str, Callable[[Path, Hub, pytest.MonkeyPatch], object]] = {
    "no token": lambda folder, hub, patch: patch.delenv("HF_TOKEN"),
    "wrong token": lambda folder, hub, patch: patch.setenv("HF_TOKEN", "hf_wrong"),
    "odd token": lambda folder, hub, patch: patch.setenv("HF_TOKEN", "hf_wri ter"),
    "read token": lambda folder, hub, patch: patch.setenv("HF_TOKEN", READ_TOKEN),
    "no network": constant("ENDPOINT", "http://127.0.0.1:9"),
    "offline": constant("HF_HUB_OFFLINE", True),
    "public": lambda folder, hub, patch: hub.repos.setdefault(("dataset", REPO), Repo(private=False)),
    "changed": lambda folder, hub, patch: (folder / "train.jsonl").write_text(""),
    "unfinished": lambda folder, hub, patch: (folder / "manifest.json").unlink(),
    "uncertified": spoil("certificate.json", None),
    "no card": spoil(CARD, None),
    "bad card": spoil(CARD, "---\nlicense: [\n---\n"),
}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no token", r"^no Hugging Face token: `hf auth login`, or set HF_TOKEN"),
        ("odd token", r"^the Hugging Face token holds a blank or a letter that no token has; set HF_TOKEN again$"),
        ("wrong token", r"^writer/terms: not published: http\S+ answers 401 .*the token is not valid; `hf auth login`"),
        ("read token", r"^writer/terms: not published: http\S+ answers 403 .*take one that may write for writer"),
        ("others/terms", r"^others/terms: not published: .* 403 \(You don't have the rights to write under others\)"),
        ("a/b/c", r"^'a/b/c' is not a repository's name, expected NAME or OWNER/NAME"),
        ("no good", r"^'no good' is not a repository's name"),
        ("no network", r"^writer/terms: not published: no answer from http://127.0.0.1:9 \(.+\): check the network"),
        ("offline", r"^writer/terms: not published: HF_HUB_OFFLINE is set; unset it$"),
        ("create=500", r"answers 500 \(.*\): try again later$"),
        ("create=404", r"answers 404 .*take one that may write for writer, or name a repository of your own$"),
        ("preupload=403", r"answers 403"),
        ("commit=500", r"answers 500 \(.*\): try again later$"),
        ("commit=412", r"answers 412 \(.*\): try again later$"),
        ("commit=413", r"answers 413 \(.*\): fix what the answer names$"),
        ("bad card", r"not published: Invalid metadata in README.md"),
        ("public", r"^writer/terms: is a public repository already; make it private in its settings"),
        ("changed", r"dataset: changed since it was made: train.jsonl; make the folder again$"),
        ("uncertified", r"dataset: certificate.json is missing: make the dataset again, then publish it$"),
        ("no card", r"dataset: README.md is missing: make the dataset again"),
        ("unfinished", r"dataset: no manifest.json there"),
    ],
)
def test_what_goes_wrong_gets_one_line_and_publishes_nothing(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    action, _, status = what.partition("=")
    hub.faults = {action: [int(status or 0)]}
    AMISS.get(what, lambda *_: None)(folder, hub, monkeypatch)
    before = contents(folder)
    with pytest.raises(UserError, match=said):
        push(folder, what if "/" in what or what == "no good" else REPO, private=what == "public")
    assert contents(folder) == before and not any(repo.commits for repo in hub.repos.values())
    if what in ("no token", "odd token", "a/b/c", "no good", "changed", "uncertified", "no card", "unfinished"):
        assert hub.calls == []


def test_a_fault_that_passes_is_tried_again(folder: Path, hub: Hub) -> None:
    hub.faults["preupload"] = [503]
    push(folder, REPO)
    assert hub.repos["dataset", REPO].files == contents(folder) and hub.calls.count("preupload") == 2


def command(hub: Hub, home: Path, *arguments: object) -> tuple[list[str], dict[str, str]]:
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_writer", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return [sys.executable, "-m", "data_gen.publish", *map(str, arguments)], os.environ | variables


def test_a_killed_push_changes_nothing_and_can_be_repeated(folder: Path, hub: Hub, tmp_path: Path) -> None:
    before = contents(folder)
    hub.waits["commit"] = threading.Event()
    words, variables = command(hub, tmp_path / "home", folder, "--push", REPO)
    process = subprocess.Popen(words, env=variables, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while "commit" not in hub.calls:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert contents(folder) == before and hub.repos["dataset", REPO].commits == []
    del hub.waits["commit"]
    push(folder, REPO)
    assert hub.repos["dataset", REPO].files == before


def test_both_by_the_command(folder: Path, hub: Hub, tmp_path: Path) -> None:
    target = tmp_path / "arrow"
    words, variables = command(hub, tmp_path / "home", folder, "--save-to-disk", target, "--push", REPO, "--private")
    done = subprocess.run(words, env=variables, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{target}: datasets.load_from_disk('{target}') reads it\n"
        f"{hub.url}/datasets/{REPO}/commit/{hub.repos['dataset', REPO].sha}\n"
    )
    assert hub.repos["dataset", REPO].private and read_manifest(target, "save_to_disk")

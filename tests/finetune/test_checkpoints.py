"""finetune/checkpoints.py: who may resume from a run's folder, and which of its checkpoints is whole."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import pytest

from finetune.checkpoints import begin, explain_interruption, last_checkpoint
from finetune.config import load_settings
from plumbing.errors import UserError

SETTINGS = load_settings("tiny", [])
INPUTS = {"dataset": "d1", "base": "b1"}


def make_checkpoint(folder: Path, step: int, state: str | None = "{}", random_states: int = 1) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for process in range(random_states):
        with zipfile.ZipFile(checkpoint / f"rng_state_{process}.pth", "w") as file:
            file.writestr("data.pkl", b"as torch.save packs it")
    if state is not None:
        (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def test_a_checkpoint_that_a_kill_cut_short_is_not_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two processes, of which the first does not wait for the second before it writes its last file."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    whole, torn = '{"global_step": 2}', '{"global_st'
    for step, state, random_states in ((2, whole, 2), (10, torn, 2), (12, None, 2), (14, whole, 1), (16, whole, 2)):
        make_checkpoint(tmp_path, step, state, random_states)
    cut = tmp_path / "checkpoint-16" / "rng_state_1.pth"
    cut.write_bytes(cut.read_bytes()[:40])
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


def test_the_same_run_resumes_and_a_new_one_begins_empty(tmp_path: Path) -> None:
    folder = begin(tmp_path / "adapter", SETTINGS, INPUTS, resume=False)
    kept = make_checkpoint(folder, 2)
    assert begin(tmp_path / "adapter", SETTINGS, INPUTS, resume=True) == folder and kept.is_dir()
    begin(tmp_path / "adapter", SETTINGS, INPUTS, resume=False)
    assert [path.name for path in folder.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("changed", "inputs", "wanted"),
    [
        ({"seed": 1, "batch": 2}, {}, "another batch, seed; run without --resume"),
        ({}, {"dataset": "d2"}, "another content of the dataset;"),
        ({}, {"base": "b2"}, "another content of the base;"),
    ],
)
def test_another_run_is_not_gone_on_with_and_what_differs_is_named(
    tmp_path: Path, changed: dict[str, int], inputs: dict[str, str], wanted: str
) -> None:
    kept = make_checkpoint(begin(tmp_path / "adapter", SETTINGS, INPUTS, resume=False), 2)
    with pytest.raises(UserError, match=f"was started with {wanted}"):
        begin(tmp_path / "adapter", dataclasses.replace(SETTINGS, **changed), INPUTS | inputs, resume=True)  # type: ignore[arg-type]
    assert kept.is_dir()


def test_where_nothing_was_begun_or_kept_there_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint to resume from; run without --resume"):
        begin(tmp_path / "adapter", SETTINGS, INPUTS, resume=True)
    folder = begin(tmp_path / "adapter", SETTINGS, INPUTS, resume=False)
    with pytest.raises(UserError, match="no checkpoint to resume from; run without --resume"):
        last_checkpoint(folder)


def test_ctrl_c_says_what_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        with pytest.raises(KeyboardInterrupt), explain_interruption(tmp_path):
            raise KeyboardInterrupt

    stop()
    assert capsys.readouterr().out == ""
    make_checkpoint(tmp_path, 4)
    stop()
    assert capsys.readouterr().out == "checkpoint-4 is kept: the same command with --resume continues from there\n"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[x.cc:1] . unexpected pos 5 vs 4")]
)
def test_a_full_disk_is_one_line_that_says_what_is_kept(tmp_path: Path, error: Exception) -> None:
    folder = tmp_path / ".adapter.checkpoints"
    with pytest.raises(UserError, match="free some and run the same command again"), explain_interruption(folder):
        raise error
    make_checkpoint(folder, 4)
    with pytest.raises(UserError, match="--resume: it continues from checkpoint-4"), explain_interruption(folder):
        raise error


def test_a_lost_process_is_one_line_for_those_that_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[x/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:33185")
    with pytest.raises(RuntimeError, match="gloo"), explain_interruption(tmp_path):  # one process has no others
        raise lost
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UserError, match=r"torchrun names it below.* run the same command again"),
        explain_interruption(tmp_path),
    ):
        raise lost


def test_any_other_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), explain_interruption(tmp_path):
        print(1 / 0)

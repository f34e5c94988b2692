"""The journal of answers: what it keeps, what it refuses, and that killed runs lose nothing and ask nothing twice."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.exam.recording import answer_key, open_recording
from models.answers import Answer, Request, failed
from models.ollama_server import Server
from plumbing.errors import UserError
from quantize.register import register
from tests.conftest import ROOT, make_small_adapter, make_small_base
from tests.eval.parity.test_parity import make_model
from tests.eval.test_adherence import data as data  # the fixture
from tests.models.test_ollama_server import DONE, REST, Reply, speaking

REQUEST = Request("a", ({"role": "user", "content": "Hi"},), {}, "served", 0)
OPTIONS = {"num_ctx": 1024, "stop": ["</s>"], "temperature": 0.0, "seed": 0}
ANSWER = Answer(" Hé\u2028\ud83d", "length", 9, 2, 0.5, 0.1)


def test_what_was_appended_is_there_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "new/r.answers.jsonl"
    with open_recording(path) as recording:
        recording.append([("k1", "a", ANSWER)])
        assert recording.answers == {"k1": ANSWER}
        assert path.read_bytes().endswith(b"\n"), "on the disk before the run ends"
    with open_recording(path) as recording:
        recording.append([("k2", "b", Answer("x"))])
        assert recording.added == ["k2"]
    with open_recording(path) as recording:
        assert recording.answers == {"k1": ANSWER, "k2": Answer("x")} and recording.notes == []


def test_every_answer_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("plumbing.jsonl.os.fsync", synced.append)
    with open_recording(tmp_path / "r.jsonl") as recording:
        recording.append([("k1", "a", ANSWER)])
        recording.append([("k2", "a", ANSWER)])
        assert synced == [recording.lines.file.fileno()] * 2


def test_an_error_cannot_be_kept(tmp_path: Path) -> None:
    with open_recording(tmp_path / "r.jsonl") as recording, pytest.raises(AssertionError):
        recording.append([("k1", "a", failed("server", "HTTP 500"))])


def test_what_is_withdrawn_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with open_recording(path) as recording:
        recording.append([("k1", "a", ANSWER)])
    with open_recording(path) as recording:
        recording.append([("k2", "b", ANSWER)])
        recording.append([("k3", "c", ANSWER)])
        recording.withdraw()
        assert recording.answers.keys() == {"k1"}
        recording.append([("k3", "c", Answer("right"))])
    assert len(path.read_text().splitlines()) == 5, "append-only"
    with open_recording(path) as recording:
        assert recording.answers == {"k1": ANSWER, "k3": Answer("right")}


@pytest.mark.parametrize("left", [1, 5, 20, 60])
def test_a_torn_last_line_is_dropped(tmp_path: Path, left: int) -> None:
    path = tmp_path / "r.jsonl"
    with open_recording(path) as recording:
        recording.append([("k1", "a", ANSWER)])
        whole = path.stat().st_size
        recording.append([("k2", "b", ANSWER)])
    path.write_bytes(path.read_bytes()[: whole + left])
    with open_recording(path) as recording:
        assert recording.answers.keys() == {"k1"} and "cut short" in recording.notes[0]
        recording.append([("k2", "b", Answer("x"))])
    with open_recording(path) as recording:
        assert recording.answers == {"k1": ANSWER, "k2": Answer("x")} and recording.notes == []


def test_a_first_line_that_is_torn_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for torn in (b'{"ke', b'{"key": "abc", "id'):
        path.write_bytes(torn)
        with open_recording(path) as recording:
            assert recording.answers == {} and path.stat().st_size == 0


@pytest.mark.parametrize(
    "row", ["{", "[]", '{"key": "k"}', '{"key": 1, "id": "a", "text": "x"}', '{"key": "k", "id": "a", "text": null}',
            '{"key": "k", "id": "a", "text": "x", "colour": "red"}', '{"void": 3}'], ids=repr
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_told_and_left(tmp_path: Path, row: str) -> None:
    path = tmp_path / "r.jsonl"
    with open_recording(path) as recording:
        recording.append([("k1", "a", ANSWER)])
    path.write_bytes(path.read_bytes() + row.encode() + b"\n")
    with open_recording(path) as recording:
        assert recording.answers == {"k1": ANSWER} and "cannot be read: 1" in recording.notes[0]


@pytest.mark.parametrize("content", ["my thesis\n", '{"id": "a"}\n', "no line break"], ids=repr)
def test_another_file_is_not_written(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="holds no answer of a run"), open_recording(path):
        pass
    assert path.read_text() == content


def test_a_second_run_on_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    code = "import sys; from pathlib import Path; from eval.exam.recording import open_recording\n" \
           "with open_recording(Path(sys.argv[1])): print('open', flush=True); sys.stdin.read()"  # fmt: skip
    other = subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin and other.stdout and other.stdout.readline() == b"open\n"
    with pytest.raises(UserError, match="another run is writing it"), open_recording(path):
        pass
    other.kill()
    other.wait()
    with open_recording(path):
        pass  # the lock ended with the process


def test_a_key_is_of_all_that_an_answer_depends_on() -> None:
    keys = [
        answer_key("ollama 1 d1", OPTIONS, REQUEST),
        answer_key("ollama 1 d2", OPTIONS, REQUEST),
        answer_key("ollama 2 d1", OPTIONS, REQUEST),
        *(answer_key("ollama 1 d1", OPTIONS | change, REQUEST)
          for change in ({"temperature": 0.3}, {"seed": 1}, {"num_ctx": 512}, {"stop": []}, {"top_k": 1})),
        *(answer_key("ollama 1 d1", OPTIONS, replace(REQUEST, **change)) for change in (
            {"messages": ({"role": "user", "content": "Hi "},)},
            {"messages": ({"role": "system", "content": "Hi"},)},
            {"messages": ({"role": "system", "content": ""}, *REQUEST.messages)},
            {"condition": "none"}, {"repeat": 1},
        )),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys) == 13
    assert keys[0] == answer_key("ollama 1 d1", dict(reversed(OPTIONS.items())), replace(REQUEST, id="another row"))


class Fake:
    """A slow server whose answer depends on what it is asked alone; every seventh answer is a good one, another none."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.more = threading.Event()

    def chat(self, body: dict[str, Any]) -> Reply:
        text = json.dumps([body["messages"], body["options"]], sort_keys=True)
        self.asked.append(text)
        self.more.set()
        draw = hashlib.sha256(text.encode()).digest()
        time.sleep(0.002 + draw[0] / 255 * 0.02)
        words = f"**Definition**: {body['messages'][-1]['content']} {draw.hex()}"
        return 200, DONE | {"message": {"role": "assistant", "content": words}, "eval_count": draw[1]}


def without_times(report: Path) -> dict[str, Any]:
    """What a run handed on, but for times and the name of the place."""
    rows = [json.loads(line) for line in (report / "answers.jsonl").read_text().splitlines()]
    figures = json.loads((report / "report.json").read_text())
    return {"rows": [row | {"seconds": 0, "waited": 0} for row in rows], "report": figures | {"seconds": 0}}


def command(data: Path, url: str, out: Path, *more: object) -> list[str]:
    arguments = ("--data", data, "--host", url, "--model", "m", "--out", out, "--concurrency", 4, *more)
    return [sys.executable, "-m", "eval.adherence", *map(str, arguments)]


def kill_in_the_middle(arguments: list[str], fake: Fake, chance: random.Random) -> None:
    """Start the run and kill it with -9 at a random moment: while it starts, or after some answers."""
    wanted = len(fake.asked) + chance.choice((0, 1, 2, 5, 9, 14))
    with open(os.devnull, "w") as nothing:
        run = subprocess.Popen(arguments, cwd=ROOT, stdout=nothing, stderr=nothing)
    while len(fake.asked) < wanted and run.poll() is None:
        fake.more.wait(0.05)
        fake.more.clear()
    time.sleep(chance.random() * 0.05)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it ended before it was killed"


def recorded(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the recording."""
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def test_twenty_kills_lose_nothing_and_ask_nothing_twice(data: Path, tmp_path: Path) -> None:
    fake, undisturbed, chance = Fake(), Fake(), random.Random(5)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    journal = tmp_path / "killed.answers.jsonl"
    with speaking(lambda path, _: REST[path], fake.chat) as (url, _):
        arguments = command(data, url, killed, "--limit", 240)
        kept_before: list[dict[str, Any]] = []
        for _kill in range(20):
            kill_in_the_middle(arguments, fake, chance)
            kept = recorded(journal)
            assert kept[: len(kept_before)] == kept_before, "nothing that was written is lost"
            kept_before = kept
        assert not killed.exists() and 20 < len(kept_before) < 240
        last = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
        assert last.returncode == 0, last.stderr
        assert f"{len(kept_before)} of 240 answers were recorded before" in last.stderr
    with speaking(lambda path, _: REST[path], undisturbed.chat) as (url, _):
        done = subprocess.run(command(data, url, whole, "--limit", 240), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert without_times(killed) == without_times(whole)
    keys = Counter(row["key"] for row in recorded(journal))
    assert len(keys) == len(recorded(tmp_path / "whole.answers.jsonl")) == 240
    assert set(keys.values()) == {1}, "what was recorded is not asked again"
    assert set(fake.asked) == set(undisturbed.asked)
    again = len(fake.asked) - 240  # those on their way when a kill came: their answers reached nobody
    assert 0 <= again <= 20 * 4


def test_what_an_earlier_run_answered_is_not_asked_again(data: Path, tmp_path: Path) -> None:
    fake = Fake()
    with speaking(lambda path, _: REST[path], fake.chat) as (url, _):
        ask: Callable[..., Any] = lambda *more: subprocess.run(  # noqa: E731
            command(data, url, tmp_path / "r", *more), cwd=ROOT, check=True, capture_output=True
        )
        counts = []
        for more in (["--limit", 6], ["--limit", 6], ["--limit", 9], ["--limit", 6, "--fresh"],
                     ["--limit", 6, "--set", "num_predict=9"], ["--limit", 6, "--condition", "none"],
                     ["--limit", 6, "--temperatures", "0,0.5", "--repeats", "2"]):  # fmt: skip
            before = len(fake.asked)
            ask(*more)
            counts.append(len(fake.asked) - before)
    assert counts == [6, 0, 3, 6, 6, 6, 18]


def test_a_model_made_anew_under_its_name_answers_for_itself(
    ollama: str, data: Path, tmp_path: Path, small_adapter: Path
) -> None:
    base = make_small_base(tmp_path / "base", seed=7, tie_word_embeddings=False, initializer_range=0.2)
    models = [make_model(make_small_adapter(base, tmp_path / "adapter"), tmp_path / "one"),
              make_model(small_adapter, tmp_path / "two")]  # fmt: skip
    arguments = ("--host", ollama, "--model", "again", "--data", data, "--limit", 4, "--set", "num_predict=6")
    run = [sys.executable, "-m", "eval.adherence", *map(str, arguments)]
    texts, said = [], []
    for model in (models[0], models[1], models[0]):
        register(model, "again", Server(ollama))
        done = subprocess.run([*run, "--out", tmp_path / "r"], cwd=ROOT, check=True, capture_output=True, text=True)
        texts.append([row["text"] for row in without_times(tmp_path / "r")["rows"]])
        said.append("recorded before" in done.stderr)
    assert texts[0] != texts[1], "the two models differ"
    assert texts[0] == texts[2] and said == [False, False, True]
    fresh = ["--out", tmp_path / "fresh"]
    subprocess.run([*run, *fresh], cwd=ROOT, check=True, capture_output=True)
    assert without_times(tmp_path / "fresh") == without_times(tmp_path / "r"), "kept answers are those it would give"


def test_a_model_replaced_midway_leaves_no_answer_behind(data: Path, tmp_path: Path) -> None:
    tags = iter(["d1", "d2", "d1", "d1"])

    def rest(path: str, _: int) -> Reply:
        return (200, {"models": [{"model": "m:latest", "digest": next(tags)}]}) if path == "/api/tags" else REST[path]

    fake = Fake()
    with speaking(rest, fake.chat) as (url, _):
        arguments = command(data, url, tmp_path / "r", "--limit", 5)
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and "registered again" in done.stderr and not (tmp_path / "r").exists()
        assert subprocess.run(arguments, cwd=ROOT, capture_output=True).returncode == 0
    assert len(fake.asked) == 10, "the first run's answers may be another model's"

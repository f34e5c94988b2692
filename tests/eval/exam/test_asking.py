"""Several requests at a time: what comes back, a server that takes turns, and one address a run."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from eval.exam.asking import FIRST_ROUNDS, batches, takes_turns
from models.answers import Answer, Request
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from quantize.register import register
from tests.conftest import ROOT, _ollama_binary, make_small_adapter, make_small_base, running_ollama
from tests.eval.exam.test_recording import without_times
from tests.eval.parity.test_parity import make_model
from tests.eval.test_adherence import Outcome
from tests.eval.test_adherence import data as data  # the fixture

REQUESTS = [Request(str(n), ({"role": "user", "content": f"Question {n}"},)) for n in range(40)]


def test_an_error_loses_no_answer_that_came_before_it() -> None:
    came: list[str] = []
    failing = threading.Event()

    def ask(request: Request) -> Answer:
        if request.id == "30":
            failing.set()
            raise ZeroDivisionError
        return Answer(request.id)

    with pytest.raises(ZeroDivisionError):
        for batch in batches(ask, REQUESTS, 4):
            failing.wait(5)  # the caller is busy, so that the error comes in the middle of a batch
            came += [answer.text for _, answer in batch]
    assert len(set(came)) == len(came) and set(came) >= {str(n) for n in range(27)}


def test_a_run_that_ends_early_asks_no_more() -> None:
    asked: list[str] = []

    def ask(request: Request) -> Answer:
        asked.append(request.id)
        time.sleep(0.01)
        return Answer("x")

    for _ in batches(ask, REQUESTS, 2):
        break
    before = len(asked)
    time.sleep(0.1)
    assert before <= len(asked) <= before + 2, "only requests that were open came to an end"


def test_several_hosts_are_one_line(data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    arguments = ("--data", data, "--host", "http://one:11434,http://two:11434", "--out", tmp_path / "r")
    done = Outcome(monkeypatch, capsys, *arguments)
    assert done.is_one_line("expected one address", "nginx", "docs/judging.md") and not (tmp_path / "r").exists()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two real servers that hold the same model; the first answers one at a time, the second four."""
    binary = _ollama_binary()
    if binary is None:
        pytest.skip("no ollama on this machine (scripts/install_ollama.sh builds one)")
    place = tmp_path_factory.mktemp("hosts")
    base = make_small_base(place / "base", tie_word_embeddings=False, initializer_range=0.2)  # it does not loop
    folder = make_model(make_small_adapter(base, place / "adapter"), place / "model")
    first, second = running_ollama(binary, OLLAMA_NUM_PARALLEL="1"), running_ollama(binary, OLLAMA_NUM_PARALLEL="4")
    with first as one, second as two:
        for url in (one, two):
            register(folder, "m", Server(url))
        yield one, two


def test_a_server_that_takes_turns_is_recognised_by_its_own_durations(pair: Any) -> None:
    requests = [Request(r.id, r.messages, {"num_predict": 100}) for r in REQUESTS[: 4 * FIRST_ROUNDS]]
    for url, expected in zip(pair, (True, False), strict=True):
        with open_ollama(Server(url), "m") as backend:
            backend.ask(requests[0])  # loads
            came = [answer for batch in batches(backend.ask, requests, 4) for _, answer in batch]
            assert takes_turns(came, 4) is expected and takes_turns(came, 1) is False


def test_the_same_seed_gives_the_same_report_but_for_times(pair: Any, data: Path, tmp_path: Path) -> None:
    arguments = ("--data", data, "--model", "m", "--limit", 12, "--host", pair[0], "--concurrency", 4,
                 "--temperatures", "0,0.8", "--repeats", 2, "--set", "num_predict=40", "--fresh")  # fmt: skip
    for name in ("one", "two"):
        run = [sys.executable, "-m", "eval.adherence", *map(str, arguments), "--out", tmp_path / name]
        done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
        assert "answers one request at a time" in done.stderr and "temperature 0.8" in done.stdout
    assert without_times(tmp_path / "one") == without_times(tmp_path / "two")
    rows = [[json.loads(line)["text"] for line in (tmp_path / name / "repeats.jsonl").read_text().splitlines()]
            for name in ("one", "two")]  # fmt: skip
    assert rows[0] == rows[1] and len(rows[0]) == 36

"""Several servers, one queue: work is spread, a host that dies loses nothing, and all must hold the same model."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from contract.violation import Violation
from eval.exam.asking import TELLING, batches, takes_turns
from eval.exam.hosts import open_hosts
from eval.exam.tally import progress
from eval.judge.verdict import Verdict
from models.answers import Answer, Request
from models.ollama_server import Server, open_ollama
from plumbing.errors import UserError
from quantize.ollama_api import Ollama
from quantize.register import register
from tests.conftest import ROOT, _ollama_binary, make_small_adapter, make_small_base, running_ollama
from tests.eval.exam.test_recording import Fake, without_times
from tests.eval.parity.test_parity import make_model
from tests.eval.test_adherence import Outcome
from tests.eval.test_adherence import data as data  # the fixture
from tests.models.test_ollama_server import CLOSE, DONE, REST, Reply, speaking

REQUESTS = [Request(str(n), ({"role": "user", "content": f"Question {n}"},)) for n in range(40)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.ollama_server.PAUSES", (0.01, 0.01))


def ask_both(urls: list[str], concurrency: int = 4) -> list[Answer]:
    with open_hosts([Server(url, timeout=5) for url in urls], "m") as backend:
        came = dict(pair for batch in batches(backend.ask, REQUESTS, concurrency) for pair in batch)
        backend.pins()
    return [came[n] for n in range(len(REQUESTS))]


def echo(body: Any) -> Reply:
    time.sleep(0.005)
    return 200, DONE | {"message": {"role": "assistant", "content": body["messages"][0]["content"]}}


def test_the_work_is_spread_over_all() -> None:
    rest = lambda path, _: REST[path]  # noqa: E731
    with speaking(rest, echo) as (one, seen_one), speaking(rest, echo) as (two, seen_two):
        came = ask_both([one, two])
    counts = [sum(path == "/api/chat" for path, _ in seen) for seen in (seen_one, seen_two)]
    assert [answer.text for answer in came] == [f"Question {n}" for n in range(40)]
    assert sum(counts) == 40 and min(counts) >= 10


def test_a_host_that_dies_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The second closes every connection after its tenth question."""
    dead = threading.Event()

    def dying(body: Any) -> Reply:
        if len([path for path, _ in seen_two if path == "/api/chat"]) > 10:
            dead.set()
        return CLOSE if dead.is_set() else echo(body)

    with (
        speaking(lambda path, _: REST[path], echo) as (one, _),
        speaking(lambda path, _: CLOSE if dead.is_set() else REST[path], dying) as (two, seen_two),
    ):
        came = ask_both([one, two])
    assert [answer.text for answer in came] == [f"Question {n}" for n in range(40)] and dead.is_set()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"{two} is gone")


def test_the_last_host_is_never_given_up_and_its_errors_are_told() -> None:
    dead = threading.Event()

    def dying(body: Any) -> Reply:
        dead.set()
        return CLOSE

    rest = lambda path, _: CLOSE if dead.is_set() else REST[path]  # noqa: E731
    with (
        speaking(rest, dying) as (one, _),
        speaking(rest, dying) as (two, _),
        open_hosts([Server(one), Server(two)], "m") as backend,
    ):
        came = [backend.ask(request) for request in REQUESTS[:3]]
    assert all(answer.error_kind == "transport" and "disconnected" in answer.error for answer in came)


def test_a_server_error_is_an_answer_of_its_own() -> None:
    """A crash is not asked again elsewhere: it is the model's on any host, and would hide."""
    rest = lambda path, _: REST[path]  # noqa: E731
    crash = lambda body: (500, {"error": "llama-server process has terminated"})  # noqa: E731
    with (
        speaking(rest, crash) as (one, seen),
        speaking(rest, crash) as (two, others),
        open_hosts([Server(one), Server(two)], "m") as backend,
    ):
        assert backend.ask(REQUESTS[0]).error_kind == "server"
    assert sum(path == "/api/chat" for path, _ in [*seen, *others]) == 1


@pytest.mark.parametrize(("path", "other"), [
    ("/api/tags", (200, {"models": [{"name": "m:latest", "digest": "d2"}]})),
    ("/api/version", (200, {"version": "0.1.0"})),
])  # fmt: skip
def test_hosts_with_another_model_or_version_are_refused(path: str, other: Reply) -> None:
    with (
        speaking(lambda asked, _: REST[asked]) as (one, _),
        speaking(lambda asked, _: other if asked == path else REST[asked]) as (two, _),
        pytest.raises(UserError, match="the hosts hold different models or versions") as caught,
        open_hosts([Server(one), Server(two)], "m"),
    ):
        pass
    assert one in str(caught.value) and two in str(caught.value)


def test_the_command_takes_several_hosts(data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    fakes = [Fake(), Fake()]
    rest = lambda path, _: REST[path]  # noqa: E731
    with speaking(rest, fakes[0].chat) as (one, _), speaking(rest, fakes[1].chat) as (two, _):
        arguments = ("--data", data, "--model", "m", "--limit", 20, "--host", f"{one},{two}", "--concurrency", 4)
        done = Outcome(monkeypatch, capsys, *arguments, "--out", tmp_path / "r")
    assert done.code == 0 and all(len(fake.asked) >= 4 for fake in fakes)
    settings = json.loads((tmp_path / "r/manifest.json").read_text())["settings"]
    assert settings["url"] == ", ".join(sorted([one, two]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two real servers that hold the same model; the first answers one at a time, the second four."""
    binary = _ollama_binary()
    if binary is None:
        pytest.skip("no ollama on this machine (scripts/install_ollama.sh builds one)")
    place = tmp_path_factory.mktemp("hosts")
    base = make_small_base(place / "base", tie_word_embeddings=False, initializer_range=0.2)  # it does not loop
    folder = make_model(make_small_adapter(base, place / "adapter"), place / "model")
    one, two = running_ollama(binary, OLLAMA_NUM_PARALLEL="1"), running_ollama(binary, OLLAMA_NUM_PARALLEL="4")
    with one as first, two as second:
        for url in (first, second):
            register(folder, "m", Ollama(url))
        yield first, second, two


def test_the_server_that_takes_turns_is_told_by_its_own_durations(pair: Any) -> None:
    requests = [Request(r.id, r.messages, {"num_predict": 100}) for r in REQUESTS[: 4 * TELLING]]
    for url, expected in zip(pair[:2], (True, False), strict=True):
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


def test_a_real_server_killed_midway_loses_nothing(pair: Any, data: Path, tmp_path: Path) -> None:
    """Last in this file: the second server is gone after it."""
    first, second, process = pair
    arguments = ("--data", data, "--model", "m", "--limit", 40, "--set", "num_predict=40", "--concurrency", 4)
    run = [sys.executable, "-m", "eval.adherence", *map(str, arguments)]
    both = subprocess.Popen([*run, "--host", f"{first},{second}", "--out", str(tmp_path / "both")], cwd=ROOT,
                            stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL)  # fmt: skip
    assert both.stderr
    for line in both.stderr:
        if line.startswith("answered 8 "):
            break
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.process.pid)], capture_output=True, text=True)
    process.process.kill()
    for child in children.stdout.split():  # its llama-server would outlive it
        os.kill(int(child), signal.SIGKILL)
    said = both.stderr.read()
    assert both.wait() == 0 and f"{second} is gone" in said, said
    rows = without_times(tmp_path / "both")["rows"]
    assert len({row["id"] for row in rows}) == 40 and all(row["text"] for row in rows)
    report = json.loads((tmp_path / "both/report.json").read_text())
    assert (report["attempted"], report["failed"]) == (40, 0)


CLEAN = Verdict((), "", True, True, True, True)
LOOSE = Verdict((Violation("", "PREAMBLE", "Sure!", 0, 5),), "PREAMBLE", False, True, True, True)


def test_progress_tells_rate_adherence_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(20) as told:
        for verdict in [CLEAN, CLEAN, None, LOOSE] * 5:
            told(verdict, False)
    lines = capsys.readouterr().err.splitlines()
    assert (
        len(lines) == 10 and lines[-1].startswith("answered 20 of 20, ") and "adherence 66.7 %, 0 s left" in lines[-1]
    )


def test_recorded_answers_are_not_in_the_rate(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    clock = iter([0.0, *[1.0] * 10, *[float(n) for n in range(11, 1001, 10)]])
    monkeypatch.setattr("eval.exam.tally.time.monotonic", lambda: next(clock))
    with progress(20) as told:
        for n in range(14):
            told(CLEAN, n < 10)
    lines = capsys.readouterr().err.splitlines()
    assert "0.1/s" in lines[5] and lines[4].endswith("time left unknown"), lines


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress(4) as told:
        for verdict in (CLEAN, LOOSE, None, CLEAN):
            told(verdict, False)
    shown = capsys.readouterr().err
    assert "4/4" in shown and "answered" not in shown
    last = shown[shown.rindex("so far") :]
    assert "66.7 %" in last and "100.0 %" in last and "PREAMBLE" in last and "no answer" in last

import json
import shutil
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from contract.contract import load_contract
from contract.example import Example, read_examples
from eval import adherence
from eval.exam.asking import ask_all, conversations, plan
from eval.exam.conditions import sample
from eval.judge.answer_row import AnswerRow
from models.answers import Answer, Ask, Backend, Request, failed
from models.ollama_server import Server
from plumbing.errors import run
from quantize.register import register
from tests.conftest import ROOT
from tests.eval.parity.test_parity import make_model
from tests.models.test_ollama_server import CLOSE, DONE, REST, Reply, speaking


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import subprocess

    folder = tmp_path_factory.mktemp("adherence") / "dataset"
    command = [sys.executable, "-m", "data_gen", "terminology", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def examples(data: Path) -> list[Example]:
    return read_examples(data / "test.jsonl", load_contract(data / "task.toml"))


class Outcome:
    """What `python -m eval.adherence ...` did: its exit code and what it said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: object) -> None:
        monkeypatch.setattr(sys, "argv", ["adherence", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            run(adherence.main)
        self.code = stopped.value.code
        self.out, self.err = capsys.readouterr()

    def is_one_line(self, *words: str) -> bool:
        lines = [line for line in self.err.splitlines() if not line.startswith("answered ")]
        return (
            self.code == 1 and len(lines) == 1 and lines[0].startswith("error: ") and all(w in lines[0] for w in words)
        )


def recording(path: Path, examples: list[Example]) -> Path:
    rows = [json.dumps({"id": e.id, "text": " " + e.response, "done_reason": "stop"}) for e in examples]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_perfect_answers_adhere(data, examples, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "report"
    done = Outcome(
        monkeypatch, capsys, "--data", data, "--replay", recording(tmp_path / "r.jsonl", examples), "--out", out
    )
    assert done.code == 0 and "adherence 100.0 %" in done.out and str(out / "report.html") in done.out
    report = json.loads((out / "report.json").read_text())
    assert report["attempted"] == report["judged"] == len(examples) and report["failed"] == 0
    assert report["adherence"]["share"] == 1 and report["primary"] == report["classes"] == {}
    assert report["named"]["share"] > 0.9, "the facts' definitions name their concept"


def test_a_report_replayed_gives_the_same_report(data, examples, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    spoiled = [e if n % 3 else Example(**{**vars(e), "response": e.response[:90]}) for n, e in enumerate(examples)]
    path = recording(tmp_path / "r.jsonl", spoiled)
    for source, name in ((path, "first"), (tmp_path / "first/answers.jsonl", "second")):
        assert Outcome(monkeypatch, capsys, "--data", data, "--replay", source, "--out", tmp_path / name).code == 0
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("first", "second"))
    assert 0.6 < first["adherence"]["share"] < 0.7
    assert {**first, "model": "", "seconds": 0} == {**second, "model": "", "seconds": 0}
    answers = [(tmp_path / name / "answers.jsonl").read_text() for name in ("first", "second")]
    assert answers[0] == answers[1]


def test_missing_answers_are_counted_apart(data, examples, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    path = recording(tmp_path / "r.jsonl", examples[: len(examples) - 20])
    arguments = ("--data", data, "--replay", path, "--out", tmp_path / "report", "--max-errors", 0.1)
    done = Outcome(monkeypatch, capsys, *arguments, "--json")
    report = json.loads(done.out)
    assert (done.code, report["failed"], report["errors"]) == (0, 20, {"missing": 20})
    assert report["adherence"]["n"] == report["judged"] == len(examples) - 20 and report["adherence"]["share"] == 1


def test_too_many_missing_answers_are_no_measurement(data, examples, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    path = recording(tmp_path / "r.jsonl", examples[20:])
    arguments = ("--data", data, "--replay", path, "--out", tmp_path / "report")
    done = Outcome(monkeypatch, capsys, *arguments, "--max-errors", 19 / len(examples))
    assert done.is_one_line("--max-errors", f"20 of {len(examples)} requests got no answer")
    assert not (tmp_path / "report").exists()
    assert Outcome(monkeypatch, capsys, *arguments, "--max-errors", 20 / len(examples)).code == 0


def test_a_real_ollama_is_measured_and_pinned(  # type: ignore[no-untyped-def]
    ollama, small_adapter, data, tmp_path, monkeypatch, capsys
) -> None:
    folder = make_model(small_adapter, tmp_path / "model")
    digest = register(folder, "medical-mistral", Server(ollama))
    monkeypatch.setenv("OLLAMA_HOST", ollama.removeprefix("http://"))
    arguments = ("--data", data, "--limit", 5, "--out", tmp_path / "report", "--concurrency", 2)
    done = Outcome(monkeypatch, capsys, *arguments)
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "report/manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["digest"] == digest and settings["model"] == "medical-mistral"
    assert settings["weights"] == json.loads((folder / "manifest.json").read_text())["outputs"]["model.q4_k_m.gguf"]
    assert (settings["ollama"], settings["num_ctx"], settings["quantisation"]) == ("0.34.2", 1024, "Q4_K_M")
    assert manifest["counts"] == {"attempted": 5, "judged": 5, "failed": 0}, "noise is judged, and fails"
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["adherence"]["count"] == 0 and sum(report["primary"].values()) == 5


def test_embedded_needs_no_server(small_adapter, data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    folder = make_model(small_adapter, tmp_path / "model")
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    arguments = ("--data", data, "--limit", 2, "--out", tmp_path / "report", "--gguf", folder / "model.q4_k_m.gguf")
    done = Outcome(monkeypatch, capsys, *arguments)
    assert done.code == 0 and "2 attempted = 2 judged + 0 failed" in done.out and "by llama_cpp" in done.out
    assert Outcome(monkeypatch, capsys, *arguments, "--concurrency", 2).is_one_line("one request at a time")


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_no_ollama_is_one_line(data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("models.ollama_server.PAUSES", (0.01,))
    done = Outcome(monkeypatch, capsys, "--data", data, "--host", free_address(), "--out", tmp_path / "report")
    assert done.is_one_line("no Ollama answers", "ollama serve") and not (tmp_path / "report").exists()


def test_a_model_that_is_not_registered_is_one_line(ollama, data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    done = Outcome(
        monkeypatch, capsys, "--data", data, "--host", ollama, "--model", "nobody", "--out", tmp_path / "report"
    )
    assert done.is_one_line("has no model 'nobody'", "python -m quantize.register MODEL_DIR nobody")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((503, {"error": "server busy"}), "HTTP 503: server busy"),
        (CLOSE, "disconnected"),
        ((200, {"error": "EOF"}), "EOF"),
    ],
    ids=["busy", "closed", "error"],
)
def test_a_server_that_fails_every_chat_ends_the_run(
    reply: Reply, words: str, data, tmp_path, monkeypatch, capsys
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("models.ollama_server.PAUSES", (0.01,))
    with speaking(lambda path, _: reply if path == "/api/chat" else REST[path]) as (url, seen):
        done = Outcome(monkeypatch, capsys, "--data", data, "--host", url, "--model", "m", "--out", tmp_path / "report")
    assert done.is_one_line("10 requests in a row got no answer", words) and not (tmp_path / "report").exists()
    assert len(seen) < 30, "the other requests were not sent"
    assert (tmp_path / "report.answers.jsonl").read_text() == "", "an error is not kept"


def test_some_errors_do_not_end_the_run(data, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    def answer(path: str, number: int) -> Reply:
        if path != "/api/chat":
            return REST[path]
        return (500, {"error": "unexpected EOF"}) if number % 3 == 0 else (200, DONE)

    with speaking(answer) as (url, _):
        done = Outcome(
            monkeypatch, capsys, "--data", data, "--host", url, "--model", "m", "--limit", 12, "--out", tmp_path / "r",
            "--max-errors", 0.4,
        )  # fmt: skip
    assert done.code == 0 and "12 attempted = 8 judged + 4 failed (4 server)" in done.out
    rows = [json.loads(line) for line in (tmp_path / "r/answers.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and sum("adheres" in row for row in rows) == 8


def broken_data(data: Path, tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "dataset"
    if name != "no folder":
        shutil.copytree(data, folder)
    if name == "no test split":
        (folder / "test.jsonl").unlink()
    if name == "no manifest":
        (folder / "manifest.json").unlink()
    if name == "edited":
        rows = (folder / "test.jsonl").read_text().splitlines()
        (folder / "test.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no folder", "python -m data_gen terminology"),
        ("no test split", "no test split there"),
        ("no manifest", "no manifest.json"),
        ("edited", "changed since it was made: test.jsonl"),
    ],
)
def test_a_dataset_that_is_no_measure_is_one_line(
    name: str, words: str, data, examples, tmp_path, monkeypatch, capsys
) -> None:  # type: ignore[no-untyped-def]
    path = recording(tmp_path / "r.jsonl", examples)
    folder = broken_data(data, tmp_path, name)
    done = Outcome(monkeypatch, capsys, "--data", folder, "--replay", path, "--out", tmp_path / "report")
    assert done.is_one_line(words) and not (tmp_path / "report").exists()


def test_another_folder_is_not_overwritten(data, examples, tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    path = recording(tmp_path / "r.jsonl", examples)
    done = Outcome(monkeypatch, capsys, "--data", data, "--replay", path, "--out", tmp_path / "mine")
    assert done.is_one_line("holds other files") and (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_a_sample_is_even_over_categories_and_concepts(examples: list[Example]) -> None:
    for limit in (1, 4, 5, 23, 60, 75, len(examples) - 1):
        chosen = sample(examples, limit)
        assert len(chosen) == len({e.id for e in chosen}) == limit
        assert chosen == sample(examples, limit) == [e for e in examples if e in chosen]
        if limit <= 60:  # then no category runs out of concepts
            counts = Counter(e.category for e in chosen)
            assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == min(limit, 5)
            assert len({e.concept for e in chosen}) == limit
    assert sample(examples, None) == sample(examples, len(examples) + 5) == examples


def test_a_larger_sample_holds_the_smaller(examples: list[Example]) -> None:
    assert set(map(str, sample(examples, 10))) < set(map(str, sample(examples, 40)))


def test_answers_keep_their_order_with_many_at_a_time(data: Path, examples: list[Example]) -> None:
    busy, most, lock = 0, 0, threading.Lock()

    def ask(request: Request) -> Answer:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02 if request.id.endswith("0") else 0.001)
        with lock:
            busy -= 1
        return Answer(request.id) if busy >= 0 else failed("server", "never")

    rows = asked(data, ask, examples[:40], concurrency=4)
    assert [row.answer.text for row in rows] == [e.id for e in examples[:40]]
    assert 2 <= most <= 4


def asked(data: Path, ask: Ask, examples: list[Example], concurrency: int = 1) -> list[AnswerRow]:
    contract = load_contract(data / "task.toml")
    questions = plan(conversations(contract, "served", [], examples), "served", [0.0], 1, 0)
    return ask_all(contract, Backend("ollama", "m", ask, dict), questions, concurrency)


def test_a_fault_of_our_own_ends_the_run(data: Path, examples: list[Example]) -> None:
    def ask(request: Request) -> Answer:
        raise ZeroDivisionError

    for concurrency in (1, 4):
        with pytest.raises(ZeroDivisionError):
            asked(data, ask, examples[:8], concurrency)


def test_only_the_users_words_are_sent(data: Path, examples: list[Example]) -> None:
    sent: list[Request] = []
    asked(data, lambda r: sent.append(r) or Answer("x"), examples[:3])  # type: ignore[func-returns-value]
    assert [r.messages for r in sent] == [({"role": "user", "content": e.request},) for e in examples[:3]]

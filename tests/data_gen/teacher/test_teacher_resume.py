"""A run that was stopped, by whatever: it goes on from its journal, and ends as an undisturbed one ends."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_gen.compose.split import draw
from data_gen.teacher import prompt
from data_gen.teacher.teach import Taught, teach
from plumbing.errors import UserError
from tests.conftest import ROOT
from tests.fake_ollama import CONTRACT, FakeOllama, Question, Reply, apt, make_drafts, moody

DRAFTS = make_drafts(12)
# A process of its own that teaches 40 rows: arguments are the journal and the server's URL.
PROCESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
from pathlib import Path
from plumbing.errors import run
from data_gen.teacher.teach import teach
from tests.fake_ollama import CONTRACT, make_drafts
run(lambda: print(teach(CONTRACT, make_drafts(40), "m", Path(sys.argv[1]), url=sys.argv[2]).counts))
"""


def run(fake: FakeOllama, journal: Path, drafts: Any = DRAFTS, **settings: Any) -> Taught:
    return teach(
        settings.pop("contract", CONTRACT), drafts, "m", journal, **{"url": fake.url, "pauses": (0.01,)} | settings
    )


def start(fake: FakeOllama, journal: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(journal), fake.url]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@contextmanager
def running(fake: FakeOllama, journal: Path, rows: int) -> Iterator[subprocess.Popen[str]]:
    """A process that teaches 40 rows and has at least `rows` in its journal; it gets six more, then must wait."""
    answer, gate = fake.answer, threading.Event()
    held = {fact.concept for fact, _ in make_drafts(40)[rows + 6 :]}

    def holding(question: Question) -> Reply:
        if question.concept in held:
            gate.wait(60)
        return answer(question)

    fake.answer = holding
    with start(fake, journal) as process:
        while process.poll() is None and (not journal.exists() or len(journal.read_bytes().splitlines()) < rows):
            time.sleep(0.001)
        assert process.poll() is None, process.communicate()
        yield process
        gate.set()
        process.wait(60)
    fake.answer = answer


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "dataset.teacher.jsonl"


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_kill_9_loses_and_doubles_nothing(tmp_path: Path, journal: Path) -> None:
    drafts = make_drafts(40)
    with FakeOllama(moody) as fake:
        undisturbed = run(fake, tmp_path / "undisturbed", drafts)
        fake.questions.clear()
        for rows in (1, 6, 12, 19, 27):
            with running(fake, journal, rows) as process:
                process.kill()
            assert process.returncode == -signal.SIGKILL and rows <= len(lines(journal)) <= rows + 6
        assert run(fake, journal, drafts) == undisturbed
        ids = [line["id"] for line in lines(journal)]
        assert sorted(ids) == sorted(draft.id for _, draft in drafts), "every row once"
        asked_in_vain = len(fake.questions) - undisturbed.counts["answers"]
        assert 0 < asked_in_vain <= 5 * 4 * 3, "no more than what was in work at a kill: four rows of three attempts"


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(journal: Path) -> None:
    with FakeOllama(apt) as fake:
        with running(fake, journal, 6) as process:
            process.send_signal(signal.SIGINT)
            output, told = process.communicate(timeout=60)
        finished = len(lines(journal))
        assert process.returncode == 130 and output == "" and 6 <= finished <= 12
        assert told.startswith(
            f"teacher: stopped: {finished} of 40 rows are in {journal}; the same command resumes from there\n"
        )
        assert "Traceback" not in told
        assert run(fake, journal, make_drafts(40)).counts["accepted"] == 40
    assert len(lines(journal)) == 40


@pytest.mark.skipif(os.name == "nt", reason="no flock there")
def test_a_second_run_on_the_same_journal_is_refused(journal: Path) -> None:
    with FakeOllama(apt) as fake, running(fake, journal, 2) as process:
        with pytest.raises(UserError, match="another run is writing it"):
            run(fake, journal)
        _, told = (second := start(fake, journal)).communicate(timeout=60)
        assert second.returncode == 1 and told == (
            f"error: {journal}: another run is writing it; wait for its end, or name another --out\n"
        )
    assert process.returncode == 0 and len(lines(journal)) == 40


def test_a_torn_last_line_is_asked_again(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeOllama(moody) as fake:
        whole = run(fake, journal)
        asked = len(fake.questions)
        journal.write_bytes(journal.read_bytes()[:-30])
        assert run(fake, journal) == whole
    told = capsys.readouterr().err
    assert "the last line was cut short; what it held is asked again" in told and "11 of 12 rows are finished" in told
    assert 1 <= len(fake.questions) - asked <= 3 and len(lines(journal)) == 12


def test_a_finished_journal_asks_nothing(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeOllama(moody) as fake:
        first = run(fake, journal)
        asked, text = len(fake.questions), journal.read_bytes()
        assert run(fake, journal) == first
    assert len(fake.questions) == asked and journal.read_bytes() == text
    assert "12 of 12 rows are finished already" in capsys.readouterr().err


def test_more_attempts_go_on_where_the_failed_rows_stopped(journal: Path) -> None:
    def stubborn(question: Question) -> Reply:
        return question.record(definition=f"No{'!' * (1 + bool(question.told))}")

    with FakeOllama(stubborn) as fake:
        with pytest.raises(UserError, match="none of 1 rows"):
            run(fake, journal, DRAFTS[:1], attempts=2)
        fake.answer = apt
        taught = run(fake, journal, DRAFTS[:1], attempts=3)
    seeds = [question.body["options"]["seed"] for question in fake.questions]
    assert seeds == [draw("teacher", DRAFTS[0][1].id, attempt) % 2**31 for attempt in range(3)]
    assert fake.questions[2].told and taught.counts | {"accepted": 1, "retried": 1, "answers": 3} == taught.counts


FOREIGN = ["model", "fact", "request", "contract", "version", "options"]


@pytest.mark.parametrize("change", FOREIGN)
def test_rows_of_another_question_are_not_used_and_said(
    journal: Path, change: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (fact, draft), contract = DRAFTS[0], CONTRACT
    with FakeOllama(apt) as fake:
        run(fake, journal, [(fact, draft)])
        if change == "model":
            fake.models = {"m:latest": "d2"}
        elif change == "fact":
            fact = dataclasses.replace(
                fact, texts=fact.texts | {"clinical": "Fever and pain are typical of this illness, as a rule."}
            )
        elif change == "request":
            draft = dataclasses.replace(draft, request="What is that?")
        elif change == "contract":
            contract = dataclasses.replace(contract, about="You explain.")
        elif change == "version":
            monkeypatch.setattr(prompt, "VERSION", 2)
        else:
            monkeypatch.setitem(prompt.OPTIONS, "temperature", 0.5)
        capsys.readouterr()
        taught = run(fake, journal, [(fact, draft)], contract=contract)
    assert len(fake.questions) == 2 == len(lines(journal)) and len(taught.examples) == 1
    said_first = capsys.readouterr().err.splitlines()[0]
    assert said_first == f"teacher: {journal}: 1 rows of another model, fact, request, prompt or contract are not used"


def test_a_source_or_a_reworded_frame_asks_nothing_anew(journal: Path) -> None:
    fact, draft = DRAFTS[0]
    with FakeOllama(apt) as fake:
        run(fake, journal, [(fact, draft)])
        sourced = dataclasses.replace(
            fact, sources=({"name": "n", "id": "i", "url": "u", "licence": "l"},), reviewed=True
        )
        record = draft.record | {"definition": f"In short: {draft.record['definition']}"}
        reworded = dataclasses.replace(draft, record=record, system="Answer.")
        taught = run(fake, journal, [(sourced, reworded)])
    assert len(fake.questions) == 1 and taught.examples[0].system == "Answer."


def test_a_record_that_was_edited_out_of_form_is_asked_again(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeOllama(apt) as fake:
        run(fake, journal, DRAFTS[:2])
        first, second = lines(journal)
        first["record"]["definition"] = "Bad."
        journal.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
        assert run(fake, journal, DRAFTS[:2]).counts["accepted"] == 2
    assert len(fake.questions) == 3 and "is asked again: section 'definition': TOO_SHORT" in capsys.readouterr().err

"""A teacher's whole run against a server that behaves as told: what is accepted, asked again, failed, kept, resumed."""

from __future__ import annotations

import dataclasses
import json
import queue
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract.contract import Contract
from contract.example import row_faults
from data_gen.compose.split import draw
from data_gen.teacher.checks import REASONS
from data_gen.teacher.teach import Taught, _results, teach
from plumbing.errors import UserError
from tests.fake_ollama import CLOSE, CONTRACT, RESET, FakeOllama, Question, Reply, apt, make_drafts, moody, said
from tests.strategies import PUBMEDQA, load_text

DRAFTS = make_drafts(12)
BUSY = (503, {"error": "server busy, please try again."})


def run(
    fake: FakeOllama, journal: Path, drafts: Any = DRAFTS, contract: Contract = CONTRACT, **settings: Any
) -> Taught:
    return teach(contract, drafts, "m", journal, **{"url": fake.url, "pauses": (0.01, 0.01)} | settings)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "dataset.teacher.jsonl"


def lines(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_every_row_keeps_all_but_its_record(journal: Path) -> None:
    with FakeOllama(apt) as fake:
        taught = run(fake, journal)
    assert taught.failed == [] and len(taught.examples) == len(DRAFTS)
    for (fact, draft), row in zip(DRAFTS, taught.examples, strict=True):
        assert dataclasses.replace(row, record=draft.record, response=draft.response) == draft
        assert row.record["definition"] == f"Put simply, {fact.concept}{fact.texts['definition'][len(fact.concept) :]}"
        assert row.record["note"] == draft.record["note"] and list(row.record) == list(draft.record)
    assert list(row_faults(CONTRACT, (json.loads(row.to_json()) for row in taught.examples))) == []
    assert taught.counts == {"rows": 12, "accepted": 12, "retried": 0, "failed": 0, "answers": 12, "reasons": {}}
    assert taught.pins == {
        "model": "m", "digest": "d1", "ollama": "0.34.2", "attempts": 3, "prompt": 1, "temperature": 0.7,
        "num_ctx": 4096, "num_predict": 1024,
    }  # fmt: skip


def test_the_question_holds_what_an_answer_needs(journal: Path) -> None:
    fact, draft = DRAFTS[0]
    fact = dataclasses.replace(fact, expansion="alveolar fire", aliases=("lung fire",), other_senses=("a plant",))
    with FakeOllama(apt) as fake:
        run(fake, journal, [(fact, draft)])
    body = fake.questions[0].body
    assert {key: body[key] for key in ("model", "stream", "truncate", "shift", "think")} == {
        "model": "m", "stream": False, "truncate": False, "shift": False, "think": False,
    }  # fmt: skip
    assert body["options"] == {
        "temperature": 0.7,
        "num_ctx": 4096,
        "num_predict": 1024,
        "seed": draw("teacher", draft.id, 0) % 2**31,
    }
    assert list(body["format"]["properties"]) == ["definition", "explanation", "clinical_relevance"]
    assert "pattern" not in json.dumps(body["format"]) and "note" not in json.dumps(body["format"])
    prompt = fake.questions[0].prompt
    for text in (
        *fact.texts.values(), draft.request, "stands for: alveolar fire", "other names: lung fire", "a plant",
        f'Name "{fact.concept}" in definition', ", ".join(fact.keywords),
        "definition (Definition): one paragraph of 5 to 60 words", f"Note: {draft.record['note']}",
    ):  # fmt: skip
        assert text in prompt, text
    assert body["messages"][0]["role"] == "system" and CONTRACT.about in body["messages"][0]["content"]


def test_a_refused_answer_is_asked_again_with_every_reason_and_another_seed(journal: Path) -> None:
    def learning(question: Question) -> Reply:
        if "not plain text" not in question.told:
            return question.record(definition=f"**{question.concept}** swells, swells and swells.")
        return question.record() if "not JSON" in question.told else said("Sure!")

    with FakeOllama(learning) as fake:
        taught = run(fake, journal, DRAFTS[:1])
    first, second, third = fake.questions
    assert len({question.body["options"]["seed"] for question in fake.questions}) == 3
    assert first.told == "" and second.told.startswith("- not plain text: **\nWrite")
    assert third.told.startswith("- not plain text: **\n- not JSON: ")
    assert second.prompt.startswith(first.prompt) and len(second.body["messages"]) == 2
    assert taught.counts | {"accepted": 1, "retried": 1, "answers": 3} == taught.counts


FAULTS: dict[str, tuple[Any, str]] = {
    "invented number": ({"explanation": "It strikes 99 people, with swelling in white cells and enzymes."}, "NUMBER"),
    "dropped keyword": ({"explanation": "Many kinds of white cells come and let their enzymes out."}, "KEYWORD"),
    "broken JSON": (said('{"definition": '), "NOT_JSON"),
    "cut off": (said('{"definition": "It', "length"), "CUT"),
    "in a loop": ((500, {"error": "prediction aborted, token repeat limit reached"}), "LOOPED"),
    "no prompt fits": ((400, {"error": {"n_prompt_tokens": 9000}}), "PROMPT_TOO_LONG"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_what_is_refused_at_every_attempt_fails_and_is_listed(journal: Path, fault: Any, reason: str) -> None:
    bad = DRAFTS[3][1]

    def answer(question: Question) -> Reply:
        wrong = question.concept == bad.concept
        return question.record() if not wrong else question.record(**fault) if isinstance(fault, dict) else fault

    with FakeOllama(answer) as fake:
        taught = run(fake, journal, attempts=2)
    (failure,) = taught.failed
    tries = 1 if reason == "PROMPT_TOO_LONG" else 2
    assert failure.id == bad.id and [rejection.reason for rejection in failure.rejections] == [reason] * tries
    assert len(failure.answer) <= 300 and json.loads(failure.to_json())["rejections"][0]["reason"] == reason
    assert [row.id for row in taught.examples] == [draft.id for _, draft in DRAFTS if draft is not bad]
    assert taught.counts["reasons"] == {reason: 1} and len(fake.questions) == 11 + tries


@pytest.mark.parametrize("fault", [BUSY, CLOSE, RESET, (500, {"error": "llama-server process has terminated"})])
def test_a_fault_of_the_wire_is_no_attempt(journal: Path, fault: Reply) -> None:
    with FakeOllama(lambda question: fault if question.tries == 0 else question.record()) as fake:
        taught = run(fake, journal)
    assert taught.counts | {"accepted": 12, "retried": 0, "answers": 12} == taught.counts


@pytest.mark.parametrize(
    ("fault", "words"),
    [(BUSY, "does not answer: HTTP 503: server busy"), (CLOSE, "does not answer: "), ((404, {"error": "gone"}), "has no model 'm'")],
)  # fmt: skip
def test_a_server_that_is_lost_stops_the_run_and_costs_no_finished_row(
    journal: Path, fault: Reply, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOllama(lambda question: question.record() if len(fake.questions) <= 7 else fault) as fake:
        with pytest.raises(UserError) as caught:
            run(fake, journal, concurrency=1)
        assert words in str(caught.value) and "\n" not in str(caught.value)
        assert f"; 7 of 12 rows are in {journal}; the same command resumes from there" in str(caught.value)
        assert len(lines(journal)) == 7
        fake.answer, before = apt, len(fake.questions)
        taught = run(fake, journal)
    assert taught.counts["accepted"] == 12 and len(fake.questions) - before == 5
    assert f"{journal}: 7 of 12 rows are finished already" in capsys.readouterr().err


def test_a_slow_server_is_waited_for(journal: Path) -> None:
    with FakeOllama(apt, delay=0.3) as fake:
        assert run(fake, journal, DRAFTS[:2], timeout=0.2, concurrency=2).counts["accepted"] == 2
        with pytest.raises(UserError, match=r"no answer within 0.1 s \(2 tries\)"):
            run(fake, journal, DRAFTS[2:3], timeout=0.1, concurrency=1)


def test_neither_order_nor_results_depend_on_the_concurrency(tmp_path: Path) -> None:
    drafts = make_drafts(40)
    with FakeOllama(moody, delay=0.01) as fake:
        alone = run(fake, tmp_path / "1", drafts, concurrency=1)
        assert fake.at_once == 1
        questions = sorted(json.dumps(question.body) for question in fake.questions)
        fake.questions.clear()
        together = run(fake, tmp_path / "8", drafts, concurrency=8)
        assert 1 < fake.at_once <= 8
    assert together == alone and alone.counts["retried"] > 3 < alone.counts["failed"]
    assert questions == sorted(json.dumps(question.body) for question in fake.questions)
    order = {draft.id: place for place, (_, draft) in enumerate(drafts)}
    for rows in (alone.examples, alone.failed):
        assert [row.id for row in rows] == sorted((row.id for row in rows), key=order.__getitem__)
    wanted = Counter(zlib.crc32(draft.concept.encode()) % 5 for _, draft in drafts)
    assert alone.counts | {"failed": wanted[0], "retried": wanted[1] + wanted[2]} == alone.counts


def test_no_accepted_row_is_an_error_that_names_the_commonest_reason(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def hopeless(question: Question) -> Reply:
        return said("Sure!") if "cornea" in question.prompt else said("{}")

    with FakeOllama(hopeless) as fake:
        for asked in (36, 36):  # the journal holds the failures too
            with pytest.raises(UserError) as caught:
                run(fake, journal)
            assert len(fake.questions) == asked
    assert str(caught.value) == (
        f"teacher 'm': none of 12 rows was accepted, most often for SCHEMA ({REASONS['SCHEMA']}); "
        f"the answers are in {journal}; try a larger model"
    )
    assert "12 failed (SCHEMA 10, NOT_JSON 2)" in capsys.readouterr().err


def test_a_model_that_is_replaced_midway_is_an_error(journal: Path) -> None:
    def replaced(question: Question) -> Reply:
        fake.models = {"m:latest": "d2"}
        return question.record()

    with (
        FakeOllama(replaced) as fake,
        pytest.raises(UserError, match="'m' or its Ollama has changed since the start"),
    ):
        run(fake, journal)


def test_what_cannot_be_taught_or_reached_leaves_no_journal(journal: Path) -> None:
    with FakeOllama(apt, models={}) as fake, pytest.raises(UserError, match="ollama pull m"):
        run(fake, journal)
    fixed = dataclasses.replace(load_text(PUBMEDQA), sections=load_text(PUBMEDQA).sections[1:])
    with FakeOllama(apt) as fake, pytest.raises(UserError, match="there is nothing to teach"):
        run(fake, journal, contract=fixed)
    assert not journal.exists()


def test_a_fault_of_ours_keeps_its_traceback(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_gen.teacher.teach.read_answer", lambda *_: 1 / 0)
    with FakeOllama(apt) as fake, pytest.raises(ZeroDivisionError):
        run(fake, journal)


def test_what_is_finished_when_the_server_is_lost_is_kept() -> None:
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for result in ("one", UserError("lost"), "two", UserError("lost too")):
        results.put(result)
    finished = _results(results, 5, lambda: None)
    assert [next(finished), next(finished)] == ["one", "two"]
    with pytest.raises(UserError, match=r"^lost$"):
        next(finished)

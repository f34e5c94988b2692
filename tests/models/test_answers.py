import json
from pathlib import Path

import pytest

from models.answers import Answer, Request, open_replay
from plumbing.errors import UserError

HI = Request("a", ({"role": "user", "content": "Hi"},))


def record(path: Path, *rows: object) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_replays_what_was_recorded(tmp_path: Path) -> None:
    path = record(tmp_path / "r.jsonl", {"id": "a", "text": "Hé", "done_reason": "length"}, {"id": "b", "text": ""})
    with open_replay(path) as backend:
        assert backend.ask(HI) == Answer("Hé", "length")
        assert backend.ask(Request("b", HI.messages)) == Answer("", "stop")
        assert backend.pins() == {"recording": "r.jsonl", "recorded": 2}


def test_what_is_missing_is_an_error_and_no_empty_answer(tmp_path: Path) -> None:
    with open_replay(record(tmp_path / "r.jsonl", {"id": "b", "text": "x"})) as backend:
        answer = backend.ask(HI)
    assert answer.error_kind == "missing" and "'a'" in answer.error and answer.text == ""


def test_a_recorded_error_stays_an_error(tmp_path: Path) -> None:
    row = {"id": "a", "text": "", "done_reason": "", "error_kind": "transport", "error": "refused"}
    with open_replay(record(tmp_path / "r.jsonl", row)) as backend:
        answer = backend.ask(HI)
    assert (answer.error_kind, answer.error) == ("transport", "refused")


@pytest.mark.parametrize(
    "row", ["{", '"text"', "[]", '{"id": "a"}', '{"text": "x"}', '{"id": "a", "text": null}', "null"], ids=repr
)
def test_a_broken_line_is_named(tmp_path: Path, row: str) -> None:
    path = record(tmp_path / "r.jsonl", {"id": "b", "text": "x"}, row)
    with pytest.raises(UserError, match=r"line 2: expected {id, text, done_reason}"), open_replay(path):
        pass


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = record(tmp_path / "r.jsonl", {"id": "a", "text": "x"}, "{", {"id": "a", "text": "y"})
    with pytest.raises(UserError, match=r"2 faults: line 2: .*; line 3: a second answer for 'a'"), open_replay(path):
        pass


def test_no_such_recording(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"), open_replay(tmp_path / "none.jsonl"):
        pass

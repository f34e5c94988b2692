import dataclasses
import json
import sys
from pathlib import Path

import pytest

from contract.contract import load_contract
from eval import compare
from eval.exam.comparison import compare_models
from eval.exam.temperatures import rates_by_temperature
from eval.judge.answer_row import AnswerRow, with_content
from eval.judge.verdict import judge
from eval.report.markdown import to_markdown, to_terminal
from eval.report.report import Evidence, Report, read_report
from eval.report.summarise import summarise
from eval.report.write import write_report
from models.answers import REPEATED, Answer, failed
from plumbing.errors import UserError, run
from plumbing.handover import check_outputs, read_manifest
from tests.eval.judge.test_verdict import CLEAN, EXAMPLE, NOTE

CONTRACT = load_contract("terminology")
ANSWERS = {
    "clean": Answer(CLEAN, seconds=0.5),
    "weak note": Answer(CLEAN.replace(NOTE, "Ask.")),
    "cut": Answer(CLEAN[:100], "length"),
    "loop": Answer("", REPEATED),
    "refused": failed("transport", "connection refused"),
    "crashed": failed("server", "HTTP 500"),
}


def judged(*names: str) -> list[AnswerRow]:
    rows = [(EXAMPLE, ANSWERS[name]) for name in names]
    return with_content(CONTRACT, [AnswerRow(e, a, None if a.error_kind else judge(CONTRACT, e, a)) for e, a in rows])


def report_of(*names: str) -> Report:
    return summarise(CONTRACT, "replay", "m", judged(*names), 2.0)


def test_what_was_asked_is_judged_or_failed() -> None:
    report = report_of(*ANSWERS)
    assert (report.attempted, report.judged, report.failed) == (6, 4, 2)
    assert report.errors == {"server": 1, "transport": 1}
    assert (report.adherence.count, report.adherence.n) == (1, 4), "an answer that never came is in no rate"


def test_every_failed_answer_counts_under_one_class() -> None:
    report = report_of(*ANSWERS)
    assert report.primary == {"REPETITION": 1, "TRUNCATED": 1, "NOTE_WEAK": 1}
    assert sum(report.primary.values()) == report.judged - report.adherence.count
    assert report.classes["NOTE_MISSING"] == 1, "the cut answer has no note either"


def test_a_section_counts_when_it_is_there_and_sound() -> None:
    counts = {name: rate.count for name, rate in report_of(*ANSWERS).sections.items()}
    assert counts == {"definition": 3, "explanation": 2, "clinical_relevance": 2, "note": 1}
    assert all(rate.n == 4 for rate in report_of(*ANSWERS).sections.values())


def test_nothing_judged_has_no_share() -> None:
    report = report_of("refused")
    assert report.adherence.share is None and report.named.share is None and report.content.score is None
    assert json.loads(report.to_json())["adherence"]["share"] is None


def test_the_folder_keeps_every_answer_and_reads_back(tmp_path: Path) -> None:
    report, rows = report_of(*ANSWERS), judged(*ANSWERS)
    write_report(tmp_path / "r", report, Evidence(rows), {"test.jsonl": "0"}, {"model": "m"}, 0.0)
    assert read_report(tmp_path / "r") == report
    manifest = read_manifest(tmp_path / "r", "report")
    check_outputs(tmp_path / "r", manifest)
    assert manifest["counts"] == {"attempted": 6, "judged": 4, "failed": 2}
    kept = [json.loads(line) for line in (tmp_path / "r/answers.jsonl").read_text().splitlines()]
    assert [row["text"] for row in kept] == [answer.text for answer in ANSWERS.values()]
    assert kept[1]["violations"] == [{"section": "note", "cls": "NOTE_WEAK", "found": "Ask.", "start": 307, "end": 311}]
    assert kept[4]["error"] == "connection refused" and "adheres" not in kept[4]


def test_the_page_tells_counts_and_faults() -> None:
    page = to_markdown(report_of(*ANSWERS), judged(*ANSWERS), {"digest": "abc"})
    assert page.startswith("# m: adherence 25.0 % (4.6 to 69.9)")
    assert "6 attempted = 4 judged + 2 failed (1 server, 1 transport)" in page
    assert "| definition | 75.0 % (30.1 to 95.4) | 4 | ███████████████░░░░░ |" in page
    assert "| TRUNCATED | 1 | 1 |" in page and "NOTE_WEAK in note: 'Ask.'" in page and "- digest: abc" in page


def test_the_terminals_table_keeps_long_names_apart_and_says_which_answers_it_counts() -> None:
    rows, name = judged("clean", "weak note"), "medical-mistral:tiny-base"
    hot = [dataclasses.replace(row, temperature=0.7) for row in rows]
    changes = {"ladder": rates_by_temperature([*rows, *hot], 1), "others": (compare_models(name, rows, rows),)}
    lines = to_terminal(dataclasses.replace(report_of("clean", "weak note"), **changes)).splitlines()
    shares = [line.split("%")[0] for line in lines if line.startswith("  ") and "%" in line]
    assert f"  against  {name}  50.0 " in shares and "  temperature 0.7                     50.0 " in shares
    assert len({len(share) for share in shares if " 50.0 " in share}) == 1, "one column"
    told = "judged + 0 failed (each request's first answer at temperature 0; the 2 others count by temperature only)"
    assert told in lines[1] and "first answer" not in to_terminal(report_of("clean"))


def test_a_clean_run_has_no_faults_to_tell() -> None:
    page = to_markdown(report_of("clean"), judged("clean"), {})
    assert "Failed answers" not in page and "failure class" not in page


@pytest.mark.parametrize("text", ["{", "{}", "[]", None])
def test_a_report_that_cannot_be_read_is_one_line(tmp_path: Path, text: str | None) -> None:
    write_report(tmp_path / "r", report_of("clean"), Evidence(judged("clean")), {}, {}, 0.0)
    path = tmp_path / "r/report.json"
    path.write_text(text) if text is not None else path.unlink()
    with pytest.raises(UserError, match="not a report of this version"):
        read_report(tmp_path / "r")


def compared(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, folders)])
    with pytest.raises(SystemExit) as stopped:
        run(compare.main)
    return int(str(stopped.value.code))


def test_compare_prints_a_line_a_report_and_one_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, answers in {"base": ("cut", "refused"), "tuned": ("refused", "cut", "clean")}.items():
        write_report(tmp_path / name, report_of(*answers), Evidence(judged(*answers)), {}, {}, 0.0)
    assert compared(monkeypatch, tmp_path / "base", tmp_path / "tuned") == 0
    table, _, answer = capsys.readouterr().out.partition("\n\n")
    lines = [" ".join(line.split()) for line in table.splitlines()]
    assert lines[0].split() == ["report", "adherence", "n", "term", "named", "seconds", "model"]
    assert lines[1].startswith("base") and " 0.0 % (0.0 to 79.3) 1 (+1 failed) " in lines[1]
    assert lines[2].startswith("tuned") and " 50.0 % (9.5 to 90.5) 2 (+1 failed) " in lines[2]
    request, _, text = answer.strip().partition("\n")
    assert (request, text.rpartition("\n\n")[0]) == ("> What is uremia?", CLEAN), "the one that adheres, not the first"
    assert text.endswith("\n\n(one answer, which may be wrong: educational, not medical advice)")


def test_compare_tells_reports_of_one_name_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "tuned"):
        write_report(tmp_path / name / "report", report_of("clean"), Evidence(judged("clean")), {}, {}, 0.0)
    assert compared(monkeypatch, tmp_path / "base/report", tmp_path / "tuned/report") == 0
    out = capsys.readouterr().out
    assert str(tmp_path / "base/report") in out and str(tmp_path / "tuned/report") in out


def test_compare_refuses_what_is_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(monkeypatch, tmp_path) == 1
    assert capsys.readouterr().err.startswith("error: ")

"""Report + Evidence -> report folder: report.json, report.md, report.html, answers.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.judge.answer_row import AnswerRow
from eval.report.markdown import to_markdown
from eval.report.page import to_html
from eval.report.report import Evidence, Report
from plumbing.handover import new_folder, write_manifest


def write_report(
    out: Path, report: Report, evidence: Evidence, inputs: dict[str, str], settings: dict[str, Any], started: float,
    further: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write the whole folder or nothing.  `further` holds texts by file name, such as a gate's."""
    with new_folder(out, "report") as folder:
        _write_rows(folder / "answers.jsonl", evidence.rows)
        if evidence.further:
            _write_rows(folder / "repeats.jsonl", evidence.further)
        for number, rows in enumerate(evidence.others.values(), 1):
            _write_rows(folder / f"against-{number}.jsonl", rows)
        texts = {
            "report.json": report.to_json(),
            "report.md": to_markdown(report, evidence.rows, settings),
            "report.html": to_html(report, evidence, settings),
        }
        for name, text in (texts | dict(further or {})).items():
            (folder / name).write_text(text, encoding="utf-8")
        counts = {"attempted": report.attempted, "judged": report.judged, "failed": report.failed}
        write_manifest(folder, "report", inputs, settings, counts, packages=("httpx",), started=started)


def _write_rows(path: Path, rows: Sequence[AnswerRow]) -> None:
    path.write_text("".join(json.dumps(row.row(), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

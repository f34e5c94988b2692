"""Report folders -> a table with a line for each report, and one answer to show.

`python -m eval.compare` and `python -m scripts.demo` print them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.report.report import Report


def tabulate_reports(reports: Mapping[str, Report]) -> str:
    """A line a report: its name, what was measured, how well."""
    rows = [("report", "adherence", "n", "term named", "seconds", "model")]
    for name, report in reports.items():
        n = str(report.judged) + (f" (+{report.failed} failed)" if report.failed else "")
        model = f"{report.model}, {report.backend}"
        rows.append((name, str(report.adherence), n, str(report.named), str(report.seconds), model))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def example_answer(folder: Path) -> dict[str, Any] | None:
    """The first answer that adheres and names its concept; if there is none, the first that came at all."""
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.removesuffix("\n").split("\n")]  # splitlines would cut texts at U+2028
    came = [row for row in rows if not row["error_kind"]]
    return min(came, key=lambda row: (not row["adheres"], not row["named"]), default=None)

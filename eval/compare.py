"""Report folders -> one short table and one answer.  `python -m eval.compare REPORT_DIR...`"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from eval.report.report import Report, read_report
from plumbing.errors import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.compare", description="Compare reports of eval.adherence.")
    parser.add_argument(
        "reports", nargs="+", metavar="REPORT_DIR", help="in the table's order; the last gives the answer"
    )
    folders = [Path(folder) for folder in parser.parse_args().reports]
    alike = len({folder.name for folder in folders}) < len(folders)
    print(table({str(folder) if alike else folder.name: read_report(folder) for folder in folders}))
    example = one_answer(folders[-1])
    if example:
        print(
            f"\n> {example['request']}\n{example['text'].strip()}\n\n(one answer, which may be wrong: educational, not medical advice)"
        )


def table(reports: dict[str, Report]) -> str:
    """A line a report: its folder's name, what was measured, how well."""
    head = ("report", "adherence", "n", "term named", "seconds", "model")
    rows = [head]
    for name, report in reports.items():
        n = str(report.judged) + (f" (+{report.failed} failed)" if report.failed else "")
        rows.append(
            (
                name,
                str(report.adherence),
                n,
                str(report.named),
                str(report.seconds),
                f"{report.model}, {report.backend}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def one_answer(folder: Path) -> dict[str, Any] | None:
    """The first answer that adheres and names its concept; failing that, the first that came at all."""
    rows = [
        json.loads(line)
        for line in (folder / "answers.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    ]
    came = sorted(
        (row for row in rows if not row["error_kind"]), key=lambda row: (not row["adheres"], not row["named"])
    )
    return came[0] if came else None


if __name__ == "__main__":
    run(main)

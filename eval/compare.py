"""Report folders -> one short table and one answer.  `python -m eval.compare REPORT_DIR...`"""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.report.overview import example_answer, tabulate_reports
from eval.report.report import read_report
from plumbing.errors import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.compare", description="Compare reports of eval.adherence.")
    parser.add_argument(
        "reports", nargs="+", metavar="REPORT_DIR", help="in the table's order; the last one gives the answer"
    )
    folders = [Path(folder) for folder in parser.parse_args().reports]
    alike = len({folder.name for folder in folders}) < len(folders)
    print(tabulate_reports({str(folder) if alike else folder.name: read_report(folder) for folder in folders}))
    example = example_answer(folders[-1])
    if example:
        print(f"\n> {example['request']}\n{example['text'].strip()}\n")
        print("(one answer, which may be wrong: educational, not medical advice)")


if __name__ == "__main__":
    run(main)

"""Fact files (default: the shipped ones) -> every fault.  `python -m data_gen.lint [PATH ...]`

A line is `file:line id: rule: what was found; cure`.  Exit code 0 if there is none, 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_gen.lint_facts import ANY_FACT, SHIPPED, TEACHING_FACT, lint, read, summary
from plumbing.errors import run


def main() -> int:
    paths = [Path(path) for path in _parser().parse_args().paths]
    lines = read(paths or [SHIPPED])
    findings = lint(lines)
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack exactly the character that is reported
    print(*findings, summary(lines, findings), sep="\n")
    return 1 if findings else 0


def _parser() -> argparse.ArgumentParser:
    tables = {"rules for any fact": ANY_FACT, "rules for teaching facts": TEACHING_FACT}
    rules = [
        f"{title}:\n" + "\n".join(f"  {name:15}{text}" for name, text in rules.items())
        for title, rules in tables.items()
    ]
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.lint",
        description="Print every fault of fact files, one a line; exit code 1 if there is one.",
        epilog="\n".join(rules),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="fact files or folders (default: the shipped facts)")
    return parser


if __name__ == "__main__":
    run(main)

"""Errors that a user can fix: one line with cause and cure, exit code 1.

Every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user must fix.  `str(error)` is one line: what was found, where, and what to do."""


def faults_error(where: str, faults: Iterable[str]) -> UserError:
    """All faults of one file in one error.

    >>> str(faults_error("my.toml", ["no name", "no sections"]))
    'my.toml: 2 faults: no name; no sections'
    """
    found = list(faults)
    count = "" if len(found) == 1 else f"{len(found)} faults: "
    return UserError(f"{where}: {count}" + "; ".join(found))


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The fault text for an unknown key, with the nearest known one.

    >>> unknown_key("headding", ["heading", "name"])
    "unknown key 'headding' (did you mean 'heading'?)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f"unknown key '{key}' " + (f"(did you mean '{near[0]}'?)" if near else f"(known: {', '.join(names)})")


def run(main: Callable[[], int | None]) -> None:
    """Run a stage's main and exit: 1 with one line on a `UserError`, 130 on Ctrl-C, else with main's own code."""
    for stream in (sys.stdout, sys.stderr):  # characters that the terminal's encoding lacks are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
    except SystemExit as stop:  # argparse ends with 2, which here means that a measurement misses its gate
        sys.exit(1 if stop.code == 2 else stop.code)
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped: nothing half-written was left behind", file=sys.stderr)
        code = 130
    except OSError as error:
        cause = f"{error.filename or 'I/O'}: {error.strerror or error}"
        print(f"error: {cause}; nothing half-written was left behind", file=sys.stderr)
        code = 1
    sys.exit(code)

"""Any Modelfile -> its faults, each with line, cause and cure; no server or dataset is needed.

`python -m eval.parity --modelfile FILE` prints a line for each; exit 0 without faults, 2 with faults, 1 unreadable.
"""

from __future__ import annotations

import math
from pathlib import Path

from eval.parity.modelfile_form import FORM, Finding, Read
from eval.parity.modelfile_values import VALUES
from models.modelfile import read_commands
from plumbing.errors import UserError


def lint(path: Path) -> list[Finding]:
    """Every fault of the file.  Raises UserError when it cannot be read."""
    return lint_text(_text(path), path.parent)


def lint_text(text: str, folder: Path) -> list[Finding]:
    """Every fault by line, missing commands last; the file that FROM names is searched in `folder`."""
    read = Read(folder, tuple(read_commands(text)))
    found = [finding for check in (*FORM, *VALUES) for finding in check(read)]
    return sorted(found, key=lambda finding: finding.line or math.inf)


def _text(path: Path) -> str:
    data = b""
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # as Ollama: by the mark
        text = data.decode(encoding)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name a Modelfile") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the Modelfile in it") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text{_weights(data)}; name a Modelfile") from None
    if "\x00" in text:
        raise UserError(f"{path}: holds NUL bytes, so it is not text{_weights(data)}; name a Modelfile")
    return text


def _weights(data: bytes) -> str:
    return " but a GGUF" if data[:4] == b"GGUF" else ""

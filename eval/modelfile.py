"""Modelfile text -> its TEMPLATE, SYSTEM and parameters; the parameters of /api/show in the same form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from contract.errors import UserError

Parameters = dict[str, tuple[float | str, ...]]  # name -> its values, in order; only `stop` has several
_COMMAND = re.compile(r'^([A-Za-z]+)[ \t]+(?:"""(.*?)"""|([^\n]*))[ \t]*$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Modelfile:
    template: str
    system: str
    parameters: Parameters


def load_modelfile(path: Path) -> Modelfile:
    try:
        return read_modelfile(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `python -m quantize` writes it into the model folder") from None


def read_modelfile(text: str) -> Modelfile:
    r"""The commands that decide what a prompt becomes.

    >>> read_modelfile('FROM m.gguf\nSYSTEM Be brief.\nPARAMETER stop "</s>"\nPARAMETER num_ctx 1024').parameters
    {'stop': ('</s>',), 'num_ctx': (1024.0,)}
    """
    texts = {"template": "", "system": ""}
    pairs = []
    for command, block, line in _COMMAND.findall(text):
        name = command.lower()
        if name in texts:
            texts[name] = block or line.strip().strip('"')
        elif name == "parameter":
            key, _, value = line.strip().partition(" ")
            pairs.append((key.lower(), value.strip().strip('"')))  # a Modelfile knows no escapes
    return Modelfile(texts["template"], texts["system"], _parameters(pairs))


def shown_parameters(text: str) -> Parameters:
    r"""/api/show's `parameters`: a line each, name and value in columns.

    >>> shown_parameters('num_ctx                        1024\nstop                           "</s>"')
    {'num_ctx': (1024.0,), 'stop': ('</s>',)}
    """
    pairs = [(name, value.strip()) for name, _, value in (line.partition(" ") for line in text.splitlines()) if name]
    return _parameters([(name, json.loads(value) if value.startswith('"') else value) for name, value in pairs])


def _parameters(pairs: list[tuple[str, str]]) -> Parameters:
    found: Parameters = {}
    for name, value in pairs:
        found[name] = (*found.get(name, ()), _number(value))
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

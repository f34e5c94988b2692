"""Task + base -> the settings of an Ollama model: one dict, for the Modelfile and for the API call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contract.base import Base
from contract.contract import Contract
from models.shape import CONTEXT
from plumbing import templates
from plumbing.errors import UserError, faults_error

TEMPLATE = Path(__file__).parent.parent / "Modelfile"
ANSWER = 512  # tokens at most: four times the mean answer, and it ends an endless loop
# Named and typed as in Ollama's POST /api/create, which does not check the types itself: `template`, `system` and
# `license` are texts, `parameters` is a table of numbers and lists of texts.
Fields = dict[str, Any]


def fields(contract: Contract, base: Base, card: str = "") -> Fields:
    """Every setting, explicitly: Ollama takes a missing one from the weights or from its version's defaults.

    `card` is the model card's address.  It is added to the licence, which `ollama show` prints.  (Ollama would put a
    MESSAGE before every conversation, so the served prompt would differ from the trained one.)  Raises UserError when
    `card` is not an address.
    """
    if card and not re.fullmatch(r"https?://[!-~]+", card):
        raise UserError(f"--card: {card!r} is not an address; expected one such as https://huggingface.co/OWNER/NAME")
    return Fields(
        template=base.ollama_template(),
        system=contract.system_prompt(),
        license=f"Weights of the base ({base.name}, {base.repo}): {base.license}.\n"
        "For education only. Not medical advice: the answers were not reviewed by clinicians."
        + (f"\nModel card: {card}" if card else ""),
        parameters={
            "stop": [base.stop],
            "temperature": 0.0,  # the same question gets the same answer
            "top_p": 0.9,  # has an effect only at a higher temperature
            "repeat_penalty": 1.0,  # off: headings and note repeat by design, and the request's term must be repeated
            "frequency_penalty": float(base.frequency_penalty),
            "seed": 0,
            "num_ctx": min(base.context_length, CONTEXT),
            "num_predict": ANSWER,
        },
    )


def modelfiles(values: Fields, types: Sequence[str]) -> dict[str, str]:
    """Name -> text: `Modelfile` for the first of a folder's types, `Modelfile.TYPE` for each other."""
    names = ["Modelfile", *(f"Modelfile.{kind}" for kind in types[1:])]
    return {name: render(values, f"model.{kind}.gguf") for name, kind in zip(names, types, strict=True)}


def render(values: Fields, gguf: str) -> str:
    """The Modelfile for the file `gguf`.  Raises UserError naming every value that a Modelfile cannot hold."""
    faults = _faults(values)
    if faults:
        raise faults_error("Modelfile", faults)
    return templates.render(
        TEMPLATE, {**values, "gguf": gguf}, variable_start_string="<<", variable_end_string=">>",
        block_start_string="<%", block_end_string="%>", comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip


def _faults(values: Fields) -> list[str]:
    """What Ollama's Modelfile parser would drop or misread.  It knows no escapes (parser/parser.go)."""
    texts = {name: values[name] for name in ("template", "system", "license")}
    stops = {f"stop {number}": stop for number, stop in enumerate(values["parameters"]["stop"], 1)}
    faults = []
    for name, text in (texts | stops).items():
        dropped = sorted({c for c in text if not c.isprintable() and c not in "\n\t"})
        faults += [f"{name} holds U+{ord(c):04X}, which Ollama drops" for c in dropped]
        if name in texts and '"""' in text:
            faults.append(f'{name} holds """, which would end it')
        if name in stops and re.search('["\n]|^$', text):
            faults.append(f'{name} is {text!r}, expected text on one line without "')
    return faults

"""Differences + the answer of /api/show -> the likely causes, each in one line with its cure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from contract.base import Base
from eval.parity.checks import REGISTRATION, Difference
from eval.parity.modelfile_values import BOS_TEXTS
from models.modelfile import read_modelfile

AGAIN = "register the model folder again: python -m quantize.register MODEL_DIR NAME"
EXPORT = "export the model again: python -m quantize ADAPTER_DIR --out MODEL_DIR"


def find_causes(base: Base, shown: dict[str, Any], differences: Sequence[Difference]) -> list[str]:
    """The causes of the differences, the deepest first; a general one when none of the known causes fits."""
    held = {d.what: d for d in differences if d.where == REGISTRATION}
    causes = _gguf(held) + _template(base, shown, differences, held) + _values(base, held)
    too_long = [d for d in differences if d.what == "an answer" and "exceed" in str(d.served)]
    if too_long and "template" not in held:
        causes.append(f"'{too_long[0].where}' does not fit the served num_ctx; {AGAIN}")
    if differences and not causes:
        causes.append(_unknown(differences))
    return causes


def _gguf(held: dict[str, Difference]) -> list[str]:
    causes = []
    for flag in ("add_space_prefix", "add_bos_token"):
        if f"gguf {flag}" in held:
            trained, found = held[f"gguf {flag}"].trained, held[f"gguf {flag}"].served
            causes.append(
                f"the GGUF's tokenizer.ggml.{flag} is {str(found).lower()}, the base was trained with "
                f"{str(trained).lower()}: every prompt is split into other tokens; {EXPORT}"
            )
    if "gguf scores" in held:
        causes.append(
            "the GGUF has no tokenizer.ggml.scores: its tokenizer merges pieces in another order, so most words are split "
            f"into other tokens; {EXPORT}"
        )
    if "weights" in held:
        causes.append(f"the served weights are not the folder's GGUF; {AGAIN}")
    return causes


def _template(
    base: Base, shown: dict[str, Any], differences: Sequence[Difference], held: dict[str, Difference]
) -> list[str]:
    if "template" not in held:
        return []
    template = str(shown.get("template", ""))
    registered = read_modelfile(str(shown.get("modelfile", ""))).template
    if registered.strip() != template.strip():
        return [
            "the server does not use TEMPLATE but the GGUF's own chat template (its jinja mentions tools, or "
            f"OLLAMA_GO_TEMPLATE=0 is set); start the server with OLLAMA_GO_TEMPLATE=1, or {EXPORT}"
        ]
    causes = [
        f"TEMPLATE holds a literal {text}, and the tokenizer puts its own first: the prompt begins with two "
        f"begin-of-sequence tokens; remove {text} from TEMPLATE and register again"
        for text in BOS_TEXTS
        if text in template
    ]
    if ".System" not in template:
        causes.append(
            "TEMPLATE has no .System: the system text never reaches the model; put {{ .System }} where the base expects "
            "it and register again"
        )
    causes += _white_space(differences) if not causes else []
    return causes or [f"TEMPLATE is not the base's; {AGAIN}"]


def _white_space(differences: Sequence[Difference]) -> list[str]:
    """The first place where only white space differs between the texts."""
    for d in differences:
        if d.what == "text" and _dense(d.trained) == _dense(d.served):
            at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(d.trained, d.served, strict=False)))
            around = slice(max(0, at - 12), at + 12)
            return [
                f"only white space differs in TEMPLATE: served {d.served[around]!r}, trained {d.trained[around]!r}; "
                "write TEMPLATE exactly as the base expects it and register again"
            ]
    return []


def _values(base: Base, held: dict[str, Difference]) -> list[str]:
    causes = []
    if "stop" in held:
        stops = ", ".join(map(repr, held["stop"].served)) or "none"
        causes.append(
            f"the served stop is {stops}, the base ends an answer with {base.stop!r}: what follows an answer is not cut "
            f"off; {AGAIN}"
        )
    if "system" in held:
        causes.append(f"SYSTEM is not the contract's text; {AGAIN}")
    names = [what.removeprefix("parameter ") for what in held if what.startswith("parameter ")]
    names = [name for name in names if not (name == "stop" and "stop" in held)]
    if names:
        causes.append(f"the served parameters are not the Modelfile's ({', '.join(names)}); {AGAIN}")
    if any(what.endswith("in the Modelfile") for what in held):
        causes.append(f"the folder's Modelfile was edited; {EXPORT}")
    return causes


def _unknown(differences: Sequence[Difference]) -> str:
    if {d.what for d in differences} <= {"ids", "prompt tokens"}:
        return (
            "equal texts become other tokens: the GGUF's vocabulary is not that of the base folder's tokenizer; name the "
            f"right one with --base, or {EXPORT}"
        )
    return f"not known; compare the two texts below, then {AGAIN}"


def _dense(text: str) -> str:
    return "".join(text.split())

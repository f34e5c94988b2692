"""A model's own parameters + the run's settings -> all options that are sent with every request.

For an option that is not sent the server chooses: num_ctx by the machine's memory, the rest by its version.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from plumbing.errors import UserError, faults_error, unknown_key

# For what a model leaves open: the defaults of Ollama 0.34.2 (api/types.go), except for the context, which depends on
# the machine there, and the answer's length, which has no limit there.
DEFAULTS: dict[str, Any] = {
    "num_ctx": 4096, "num_predict": 512, "stop": [], "repeat_penalty": 1.0, "frequency_penalty": 0.0, "repeat_last_n": 64, "top_k": 40,
    "top_p": 0.9, "min_p": 0.0, "temperature": 0.0, "seed": 0,
}  # fmt: skip
KINDS: dict[str, type] = {name: type(value) for name, value in DEFAULTS.items()}


def own_options(parameters: Mapping[str, Sequence[float | str]], trained_context: int | None = None) -> dict[str, Any]:
    """All options: from the model's parameters (name -> values, as models/modelfile.py reads them), else DEFAULTS.

    Temperature and seed come from the run, not from the model, because a measurement must be repeatable.

    >>> own_options({"num_ctx": (1024.0,), "stop": ("</s>",), "temperature": (0.7,)})["num_ctx"]
    1024
    """
    found = dict(DEFAULTS)
    if trained_context:
        found["num_ctx"] = min(found["num_ctx"], trained_context)
    for name, values in parameters.items():
        if name in KINDS and name not in ("temperature", "seed"):
            found[name] = _typed(name, values)
    return found


def _typed(name: str, values: Sequence[float | str]) -> Any:
    if KINDS[name] is list:
        return [str(value) for value in values]
    try:
        value = KINDS[name](values[-1])
        return DEFAULTS[name] if name == "num_predict" and value < 1 else value  # -1 and 0: no limit
    except ValueError:
        raise UserError(
            f"the model's own parameter {name} is {values[-1]!r}, not a number; register it again"
        ) from None


def read_settings(given: Sequence[str]) -> dict[str, Any]:
    """`--set KEY=VALUE` arguments, each value TOML.  Raises UserError with all faults.

    >>> read_settings(["num_predict=256", 'stop=["</s>"]'])
    {'num_predict': 256, 'stop': ['</s>']}
    """
    found, faults = {}, []
    for text in given:
        name, _, value = (part.strip() for part in text.partition("="))
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            faults.append(f"'{text}' is not KEY=VALUE, for example num_predict=256 or 'stop=[\"</s>\"]'")
            continue
        faults += _fault(name, found[name])
    if faults:
        raise faults_error("--set", faults)
    return found


def _fault(name: str, value: Any) -> list[str]:
    if name == "temperature":
        return ["temperature has its own argument: --temperatures 0.7"]
    if name not in KINDS:
        return [unknown_key(name, KINDS.keys() - {"temperature"})]
    kind = KINDS[name]
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits or (kind is list and not all(isinstance(item, str) and item for item in value)):
        return [f"{name} is {value!r}, expected {'texts in [ ]' if kind is list else kind.__name__}"]
    # The server accepts less and gives garbage, or an answer without end.
    least = {"num_ctx": 8, "num_predict": 1}.get(name)
    if least is not None and value < least:
        return [f"{name} is {value}, expected {least} or more"]
    return [f"{name} is {value}, expected more than 0"] if name == "repeat_penalty" and value <= 0 else []

"""TOML file -> frozen dataclass.  Unknown, missing and mistyped keys are refused, all faults at once."""

from __future__ import annotations

import dataclasses
import tomllib
import types
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from plumbing.errors import UserError, faults_error, unknown_key

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed file.  Raises UserError when it is missing or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets nested as deep
        raise UserError(f"{path}: not valid TOML: {error}; fix the file") from None


def shipped_path(folder: Path, name: str, what: str) -> Path:
    """The TOML that a shipped name in `folder`, or a path that ends in .toml, stands for.

    Raises UserError with the shipped names; `what` is the word for one: task, base or preset.
    """
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise UserError(f"{name}: no such {what} (shipped: {shipped}; or a path that ends in .toml)")
    return path


def fill(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Build dataclass `kind` from a table.  Raises one UserError with every fault of the table."""
    faults = table_faults(kind, values)
    if faults:
        raise faults_error(where, faults)
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def table_faults(kind: type[Any], values: dict[str, Any]) -> list[str]:
    """Why `values` do not fit dataclass `kind`: unknown keys, missing keys, wrong types."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    hints = get_type_hints(kind)
    faults = [unknown_key(key, fields) for key in values if key not in fields]
    faults += [f"missing key '{name}'" for name, field in fields.items() if _required(field) and name not in values]
    for name in fields.keys() & values.keys():
        if not _fits(values[name], hints[name]):
            faults.append(f"'{name}' is {values[name]!r}, expected {_spell(hints[name])}")
    return sorted(faults)


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return any(_fits(value, option) for option in arguments)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint in (int, float):  # a float may be written as a whole number
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return hint is Any or (isinstance(hint, type) and isinstance(value, hint))


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)

"""A model folder and its measurements -> README.md, its Hugging Face model card (card.md.jinja).

The card shows a figure only if the figure's file names exactly these weights by their sha256.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.base import Base, load_base
from contract.contract import load_contract
from plumbing.errors import UserError
from plumbing.handover import Manifest, check_outputs, read_manifest
from plumbing.templates import render

TEMPLATE = Path(__file__).with_name("card.md.jinja")
REPOSITORY = r"[\w.-]+/[\w.-]+"  # the name of a repository of the Hub; a shipped base has the path of a folder instead


def card(folder: Path, manifest: Manifest, adapter: Path | None, reports: Sequence[Path], repo: str) -> str:
    """The card's text.  Raises UserError if a report is of other weights."""
    base, contract = load_base(folder / "base.toml"), load_contract(folder / "task.toml")
    data = tomllib.loads((folder / "task.toml").read_text(encoding="utf-8-sig")).get("data", {})
    title = f"{contract.name} on {base.name}"
    return render(TEMPLATE, {
        "front_matter": front_matter(base, title, data), "title": title, "base": base, "contract": contract,
        "repo": repo, "name": repo.rpartition("/")[2].lower(), "medical": "medical" in data.get("tags", []),
        "example": json.dumps(contract.example or "YOUR REQUEST", ensure_ascii=False),
        "files": files(folder, manifest), "untuned": "adapter" not in manifest["inputs"], "adapter": _trained(adapter),
        "digests": {"adapter": None} | manifest["inputs"],
        "reports": sorted((measured(report, manifest) for report in reports), key=lambda row: str(row["type"])),
        "parity": parity(folder, manifest), "check": check(folder, manifest),
        "language": data.get("language", ""), "licence": data.get("licence", ""),
    })  # fmt: skip


def front_matter(base: Base, title: str, data: dict[str, Any]) -> str:
    """The card's YAML: what the Hub shows."""
    from huggingface_hub import ModelCardData

    on_hub = bool(re.fullmatch(REPOSITORY, base.repo))
    return ModelCardData(
        license=base.license.lower(),
        language=[data["language"]] if data.get("language") else None,
        base_model=base.repo if on_hub else None,
        base_model_relation="quantized" if on_hub else None,
        pipeline_tag="text-generation",
        tags=["gguf", "lora", "ollama", "structured-output", "education", *data.get("tags", [])],
        model_name=title,
    ).to_yaml()


def ggufs(manifest: Manifest) -> list[str]:
    """The weights' file names, the first one first."""
    kind = manifest["settings"].get("type") or next(iter(manifest["settings"].get("types", [])), "")
    names = [name for name in manifest["outputs"] if re.fullmatch(r"model\.\w+\.gguf", name)]
    return sorted(names, key=lambda name: (name != f"model.{kind}.gguf", name))


def files(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    outputs, found = manifest["outputs"], []
    for name in ggufs(manifest):
        kind, size = name.split(".")[1], (folder / name).stat().st_size
        modelfile = f"Modelfile.{kind}" if f"Modelfile.{kind}" in outputs else "Modelfile"
        found.append({"name": name, "type": kind, "bytes": size, "sha256": outputs[name], "modelfile": modelfile})
    return found


def _trained(adapter: Path | None) -> dict[str, Any] | None:
    if adapter is None:
        return None
    manifest = read_manifest(adapter, "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return {
        "r": config.get("r"), "alpha": config.get("lora_alpha"),
        "dataset": manifest["inputs"].get("dataset", "unknown"), "rows": manifest["counts"].get("rows"),
    }  # fmt: skip


def measured(report: Path, manifest: Manifest) -> dict[str, Any]:
    """One row of the table.  Raises UserError if the report is not whole or not of one of these files."""
    report_manifest = read_manifest(report, "report")
    check_outputs(report, report_manifest)
    weights = report_manifest["settings"].get("weights")
    name = next((name for name in ggufs(manifest) if manifest["outputs"][name] == weights), None)
    if name is None:
        found = str(weights)[:12]
        raise UserError(f"{report}: was measured on other weights ({found}) than this folder's: measure these again")
    try:
        table = json.loads((report / "report.json").read_text(encoding="utf-8"))
        if table["condition"] != "served":
            found = table["condition"]
            raise UserError(f"{report}: was asked under '{found}', expected 'served', as the model is published")
        kept = {key: table["adherence"][key] for key in ("share", "low", "high")}
        rest = {key: table[key] for key in ("judged", "failed", "backend")}
        named = table["named"]["share"]
        if None in (*kept.values(), named):
            raise UserError(f"{report}: no answer was judged; measure again")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{report}: no usable report.json; measure again with python -m eval.adherence") from None
    split = report_manifest["settings"].get("split", "?")
    return {"type": name.split(".")[1], "named": named, "split": split, **kept, **rest}


def parity(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """The figures of parity.json beside the folder; None if it is missing or of other weights."""
    table = _beside(folder, "parity.json", {"gguf_sha256": str, "equal": bool, "conversations": int, "counts": dict})
    if table.get("gguf_sha256") not in [manifest["outputs"][name] for name in ggufs(manifest)]:
        return None
    count = sum(table.get("counts", {}).values())
    return {key: table.get(key) for key in ("equal", "conversations", "ollama")} | {"count": count}


def check(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """What attribute/attribute.json beside the folder reports; None when it is missing or of other weights."""
    kinds = {"weights": dict, "export": str, "agreements": list}
    found = _beside(folder, "attribute/attribute.json", kinds)
    ours = found.get("weights") == {name: manifest["outputs"][name] for name in ggufs(manifest)}
    if not ours or found["export"] == "not measured":
        return None
    return {"verdict": found["export"], "compared": found["agreements"]}


def _beside(folder: Path, name: str, needed: Mapping[str, type]) -> dict[str, Any]:
    """The content of the file beside the folder; {} without one.  `needed`: its keys and their types."""
    path = folder.absolute().parent / name
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        table = None
    if not isinstance(table, dict) or not all(isinstance(table.get(key), kind) for key, kind in needed.items()):
        raise UserError(f"{path}: not written by this project; make it again or move it away")
    return table

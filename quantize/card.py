"""A model folder and what was measured of it -> README.md, its Hugging Face model card (the wording: card.md.jinja).

A figure stands in the card only when its file names these very weights by sha256.
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

TEMPLATE = "card.md.jinja"
EXAMPLE = "Explain the medical term: Hypertension"
REPOSITORY = r"[\w.-]+/[\w.-]+"  # a Hub repository's name; a shipped base has a folder's path instead


def card(folder: Path, manifest: Manifest, adapter: Path | None, reports: Sequence[Path], repo: str) -> str:
    """The card's text.  Raises UserError when a report is of other weights."""
    import jinja2

    base, contract = load_base(folder / "base.toml"), load_contract(folder / "task.toml")
    data = tomllib.loads((folder / "task.toml").read_text(encoding="utf-8-sig")).get("data", {})
    title = f"{contract.name} on {base.name}"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters["cell"] = _cell
    return environment.get_template(TEMPLATE).render(
        front_matter=front_matter(base, title, data), title=title, base=base, contract=contract, repo=repo,
        name=repo.rpartition("/")[2].lower(), example=EXAMPLE, files=files(folder, manifest),
        untuned="adapter" not in manifest["inputs"], adapter=_trained(adapter), digests={"adapter": None} | manifest["inputs"],
        reports=sorted((measured(report, manifest) for report in reports), key=lambda row: str(row["type"])),
        parity=parity(folder, manifest), check=check(folder, manifest),
        language=data.get("language", ""), licence=data.get("licence", ""),
    )  # fmt: skip


def front_matter(base: Base, title: str, data: dict[str, Any]) -> str:
    """The card's YAML: what the Hub shows."""
    import yaml

    fields = {
        "license": base.license.lower(),
        **({"language": [data["language"]]} if data.get("language") else {}),
        **({"base_model": base.repo, "base_model_relation": "quantized"} if _on_hub(base.repo) else {}),
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "lora", "ollama", "structured-output", "education", *data.get("tags", [])],
        "model_name": title,
    }
    return "---\n" + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _on_hub(repo: str) -> bool:
    return bool(re.fullmatch(REPOSITORY, repo))


def ggufs(manifest: Manifest) -> list[str]:
    """The weights' file names, the first one first."""
    kind = manifest["settings"].get("type") or next(iter(manifest["settings"].get("types", [])), "")
    names = [name for name in manifest["outputs"] if re.fullmatch(r"model\.\w+\.gguf", name)]
    return sorted(names, key=lambda name: (name != f"model.{kind}.gguf", name))


def files(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    found = []
    for name in ggufs(manifest):
        kind = name.split(".")[1]
        own = f"Modelfile.{kind}"
        found.append(
            {"name": name, "type": kind, "bytes": (folder / name).stat().st_size, "sha256": manifest["outputs"][name]}
            | {"modelfile": own if own in manifest["outputs"] else "Modelfile"}
        )
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
    """One row of the table.  Raises UserError when the report is not whole or not of one of these files."""
    told = read_manifest(report, "report")
    check_outputs(report, told)
    weights = told["settings"].get("weights")
    name = next((name for name in ggufs(manifest) if manifest["outputs"][name] == weights), None)
    if name is None:
        raise UserError(
            f"{report}: was measured on other weights ({str(weights)[:12]}) than this folder's: measure these again"
        )
    try:
        table = json.loads((report / "report.json").read_text(encoding="utf-8"))
        if table["condition"] != "served":
            raise UserError(
                f"{report}: was asked under '{table['condition']}', wanted 'served', as the model is published"
            )
        kept = {key: table["adherence"][key] for key in ("share", "low", "high")}
        rest = {"judged": table["judged"], "failed": table["failed"], "backend": table["backend"]}
        named = table["named"]["share"]
        if None in (*kept.values(), named):
            raise UserError(f"{report}: no answer was judged; measure again")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{report}: no usable report.json; measure again with python -m eval.adherence") from None
    return {"type": name.split(".")[1], "named": named, "split": told["settings"].get("split", "?")} | kept | rest


def parity(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """What parity.json beside the folder says of these weights; None when it is missing or of others."""
    told = _beside(folder, "parity.json", {"gguf_sha256": str, "equal": bool, "conversations": int, "counts": dict})
    if told.get("gguf_sha256") not in [manifest["outputs"][name] for name in ggufs(manifest)]:
        return None
    count = sum(told.get("counts", {}).values())
    return {key: told.get(key) for key in ("equal", "conversations", "ollama")} | {"count": count}


def check(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """What attribute/attribute.json beside the folder reports; None when it is missing or of other weights."""
    kinds = {"weights": dict, "export": str, "agreements": list}
    found = _beside(folder, "attribute/attribute.json", kinds)
    ours = found.get("weights") == {name: manifest["outputs"][name] for name in ggufs(manifest)}
    if not ours or found["export"] == "not measured":
        return None
    return {"verdict": found["export"], "compared": found["agreements"]}


def _beside(folder: Path, name: str, wanted: Mapping[str, type]) -> dict[str, Any]:
    """What the file beside the folder says; {} without one.  `wanted`: what it holds, and of which type."""
    path = folder.absolute().parent / name
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        told = None
    if not isinstance(told, dict) or not all(isinstance(told.get(key), kind) for key, kind in wanted.items()):
        raise UserError(f"{path}: not what this project writes; make it again or move it away")
    return told


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")

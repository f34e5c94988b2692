"""Model folder -> a model repository of the Hub.  `python -m quantize.publish DIR --repo OWNER/NAME`

One commit holds the GGUFs, Modelfiles, task.toml, base.toml, manifest.json, the adapter (--adapter) and a card made
from what was measured.  A file whose sha256 the Hub has already is not sent again, so the same command resumes a push.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from contract.base import load_base
from plumbing import hub
from plumbing.errors import UserError, run
from plumbing.handover import MANIFEST, Manifest, check_outputs, read_manifest
from quantize.adapter_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from quantize.card import card, ggufs

Files = dict[str, Path | bytes]  # path in the repository -> the file, or content that replaces it
TEXT = (".json", ".toml", ".md", ".txt", "Modelfile")


def main() -> None:
    args = _parser().parse_args()
    check_repo(args.repo)
    reports = [Path(report) for report in args.report]
    files = collect(Path(args.model), args.repo, Path(args.adapter) if args.adapter else None, reports)
    if args.dry_run:
        print(bytes_of(files["README.md"]).decode("utf-8"), end="")
        print(f"would push to {args.repo}: {', '.join(sorted(files))}", file=sys.stderr)
        return
    print(push(files, args.repo, args.private))


def collect(folder: Path, repo: str, adapter: Path | None, reports: list[Path]) -> Files:
    """Everything that is published.  Raises UserError if the folder is not whole, or a report is of other weights."""
    manifest = read_manifest(folder, "model")
    check_outputs(folder, manifest)
    if not ggufs(manifest):
        raise UserError(f"{folder}: its {MANIFEST} names no model.TYPE.gguf; export it again with python -m quantize")
    trained = _check_adapter(folder, manifest, adapter)
    files = _cleaned(folder, manifest, {})
    files["README.md"] = card(folder, manifest, adapter, reports, repo).encode()
    if adapter and trained:
        trained["outputs"].pop("README.md", None)  # PEFT's empty form, which names the base by its path
        cleaned = _cleaned(adapter, trained, _config(adapter, folder))
        files |= {f"adapter/{name}": file for name, file in cleaned.items()}
    _check_leaks(files, [folder, *reports, *filter(None, [adapter])], [manifest, *filter(None, [trained])])
    return files


def _check_adapter(folder: Path, manifest: Manifest, adapter: Path | None) -> Manifest | None:
    if adapter is None:
        return None
    trained = read_manifest(adapter, "adapter")
    check_outputs(adapter, trained)
    if manifest["inputs"].get("adapter") != trained["outputs"].get(ADAPTER_WEIGHTS):
        cure = "name that one, or leave --adapter out"
        raise UserError(f"{adapter}: not the adapter that {folder} was made from; {cure}")
    return trained


def _config(adapter: Path, folder: Path) -> Files:
    """PEFT's config, with the base's Hub repository instead of a folder of this machine; {} if it has that already."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    named = config.get("base_model_name_or_path")
    if not is_path(named) and not (isinstance(named, str) and Path(named).is_dir()):
        return {}
    config["base_model_name_or_path"] = load_base(folder / "base.toml").repo
    return {ADAPTER_CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}


def _cleaned(folder: Path, manifest: Manifest, changed: Files) -> Files:
    """The files that the manifest names, `changed` ones replaced, and a manifest of exactly those without paths."""
    files: Files = {name: folder / name for name in manifest["outputs"]} | changed
    digests = {name: hashlib.sha256(bytes_of(content)).hexdigest() for name, content in changed.items()}
    outputs = {**manifest["outputs"], **digests}
    published = {**manifest, "settings": without_paths(manifest["settings"]), "outputs": outputs}
    return files | {MANIFEST: (json.dumps(published, indent=2, ensure_ascii=False) + "\n").encode()}


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without base_folder and every other setting that is a path of this machine.

    >>> without_paths({"type": "q8_0", "base_folder": "bases/tiny", "log": "C:\\\\Users\\\\me", "r": 8})
    {'type': 'q8_0', 'r': 8}
    """
    return {key: value for key, value in settings.items() if key != "base_folder" and not is_path(value)}


def is_path(value: object) -> bool:
    """Whether it is an absolute path on any system."""
    if not isinstance(value, str):
        return False
    return value.startswith("~") or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()


def _check_leaks(files: Files, folders: list[Path], manifests: list[Manifest]) -> None:
    """Raises UserError if a text that would be published names a folder of this machine."""
    bases = [Path(manifest["settings"].get("base_folder") or "/") for manifest in manifests]
    named = {str(path.absolute()) for path in (*folders, *bases, Path.home(), Path.cwd())} - {"/"}
    for name, content in files.items():
        if name.endswith(TEXT) or PurePosixPath(name).name.startswith("Modelfile"):
            text = bytes_of(content).decode("utf-8", errors="replace")
            found = [path for path in named if re.search(rf"(?<![\w.]){re.escape(path)}(?![\w-])", text)]
            if found:
                raise UserError(f"{name}: names {min(found)}, a path of this machine; make it again before publishing")


def bytes_of(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def push(files: Files, repo: str, private: bool = False) -> str:
    """Publish the files as model repository `repo`; returns the commit's address."""
    weights = next(name for name in sorted(files) if name.endswith(".gguf"))
    return hub.push(files, "model", repo, f"Model {weights}", private)


def check_repo(repo: str) -> None:
    """Raises UserError unless it is OWNER/NAME, which the card's download command needs."""
    if "/" not in repo:
        raise UserError(f"{repo!r} names no owner, expected OWNER/NAME")
    hub.check_name(repo)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.publish", description="Publish a model folder on the Hugging Face Hub."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository to create or to update")
    parser.add_argument(
        "--adapter", metavar="DIR", help="also publish the adapter that the model was made from, in adapter/"
    )
    reports = "reports of eval.adherence on these weights, for the card"
    parser.add_argument("--report", metavar="DIR", nargs="+", default=[], help=reports)
    parser.add_argument("--dry-run", action="store_true", help="print the card and contact nothing")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    return parser


if __name__ == "__main__":
    run(main)

"""Model folder -> a model repository on the Hugging Face Hub.  `python -m quantize.publish MODEL_DIR --repo OWNER/NAME`

One commit of the GGUFs, Modelfiles, task.toml, base.toml, manifest.json, the adapter (--adapter) and a card made from
what was measured.  A file whose sha256 the Hub has already is not sent again, so a push that broke off goes on.
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

from plumbing.errors import UserError, run
from plumbing.handover import MANIFEST, Manifest, check_outputs, read_manifest
from plumbing.hub import check_name, check_push, hub_errors
from quantize.adapter_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from quantize.card import card, ggufs

Files = dict[str, Path | bytes]  # path in the repository -> the file, or its content where it is not the file's own
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
    """Everything that is published.  Raises UserError for a folder that is not whole, or measured as another one."""
    manifest = read_manifest(folder, "model")
    check_outputs(folder, manifest)
    if not ggufs(manifest):
        raise UserError(f"{folder}: its {MANIFEST} names no model.TYPE.gguf; export it again with python -m quantize")
    trained = _check_adapter(folder, manifest, adapter)
    files = _cleaned(folder, manifest, {})
    files["README.md"] = card(folder, manifest, adapter, reports, repo).encode()
    if adapter and trained:
        trained["outputs"].pop("README.md", None)  # PEFT's empty form, which names the base by its path
        files |= {
            f"adapter/{name}": file for name, file in _cleaned(adapter, trained, _config(adapter, folder)).items()
        }
    _check_leaks(
        files, [folder, *reports, *([adapter] if adapter else [])], [manifest, *([trained] if trained else [])]
    )
    return files


def _check_adapter(folder: Path, manifest: Manifest, adapter: Path | None) -> Manifest | None:
    if adapter is None:
        return None
    trained = read_manifest(adapter, "adapter")
    check_outputs(adapter, trained)
    if manifest["inputs"].get("adapter") != trained["outputs"].get(ADAPTER_WEIGHTS):
        raise UserError(
            f"{adapter}: not the adapter that {folder} was made from; name that one, or leave --adapter out"
        )
    return trained


def _config(adapter: Path, folder: Path) -> Files:
    """PEFT's config names the base by its Hub repository, not by a folder of this machine."""
    import tomllib

    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    named = config.get("base_model_name_or_path")
    if not is_path(named) and not (isinstance(named, str) and Path(named).is_dir()):
        return {}
    config["base_model_name_or_path"] = tomllib.loads((folder / "base.toml").read_text(encoding="utf-8-sig"))["repo"]
    return {ADAPTER_CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}


def _cleaned(folder: Path, manifest: Manifest, changed: Files) -> Files:
    """The files that the manifest names, `changed` in their place, and a manifest of just those without paths."""
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
    """Whether it is an absolute path, on whatever machine."""
    if not isinstance(value, str):
        return False
    return value.startswith("~") or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()


def _check_leaks(files: Files, folders: list[Path], manifests: list[Manifest]) -> None:
    """Raises UserError when a text that would be published names a folder of this machine."""
    bases = [Path(manifest["settings"].get("base_folder") or "/") for manifest in manifests]
    named = {str(path.absolute()) for path in (*folders, *bases, Path.home(), Path.cwd())} - {"/"}
    for name, content in files.items():
        if name.endswith(TEXT) or PurePosixPath(name).name.startswith("Modelfile"):
            text = bytes_of(content).decode("utf-8", errors="replace")
            found = [path for path in named if re.search(rf"(?<![\w.]){re.escape(path)}(?![\w-])", text)]
            if found:
                raise UserError(
                    f"{name}: names {min(found)}, a path of this machine; it is not published: make it anew"
                )


def bytes_of(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def push(files: Files, repo: str, private: bool = False) -> str:
    """Publish in one commit; the commit's address.  Other files in the repository stay.

    The token is huggingface_hub's own business (HF_TOKEN or `hf auth login`), and so is the address (HF_ENDPOINT).
    Not upload_large_folder: that makes many commits, and a failure would leave weights beside another Modelfile.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, utils

    check_push(repo)
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    api = HfApi()
    weights = next(content for name, content in sorted(files.items()) if name.endswith(".gguf"))
    with hub_errors(repo, api.endpoint, httpx.TransportError):
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in sorted(files.items())
        ]
        made = api.create_repo(repo, repo_type="model", private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(made).private:
            raise UserError(f"{made}: is a public repository already; make it private in its settings, or name another")
        message = f"Model {Path(str(weights)).name}"
        return str(api.create_commit(made, operations, commit_message=message, repo_type="model").commit_url)


def check_repo(repo: str) -> None:
    """Raises UserError for what is no OWNER/NAME: the card tells how to fetch it by that."""
    if "/" not in repo:
        raise UserError(f"{repo!r} names no owner, wanted OWNER/NAME")
    check_name(repo)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.publish", description="Publish a model folder on the Hugging Face Hub."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository to make or to renew")
    parser.add_argument("--adapter", metavar="DIR", help="publish the adapter it was made from as well, in adapter/")
    parser.add_argument(
        "--report",
        metavar="DIR",
        nargs="+",
        default=[],
        help="reports of eval.adherence on these weights, for the card",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the card and contact nothing")
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    return parser


if __name__ == "__main__":
    run(main)

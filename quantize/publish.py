"""Model folder -> a model repository on the Hugging Face Hub.  `python -m quantize.publish MODEL_DIR --repo OWNER/NAME`

One commit of the GGUFs, Modelfiles, task.toml, base.toml, manifest.json, the adapter (--adapter) and a card made from
what was measured.  A file whose sha256 the Hub has already is not sent again, so a push that broke off goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from contract.errors import UserError, run
from contract.handover import MANIFEST, Manifest, check_outputs, read_manifest
from quantize.card import card, ggufs

Files = dict[str, Path | bytes]  # path in the repository -> the file, or its content where it is not the file's own
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TEXT = (".json", ".toml", ".md", ".txt", "Modelfile")


def main() -> None:
    args = _parser().parse_args()
    check_name(args.repo)
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
    if manifest["inputs"].get("adapter") != trained["outputs"].get(WEIGHTS):
        raise UserError(
            f"{adapter}: not the adapter that {folder} was made from; name that one, or leave --adapter out"
        )
    return trained


def _config(adapter: Path, folder: Path) -> Files:
    """PEFT's config names the base by its Hub repository, not by a folder of this machine."""
    import tomllib

    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    named = config.get("base_model_name_or_path")
    if not is_path(named) and not (isinstance(named, str) and Path(named).is_dir()):
        return {}
    config["base_model_name_or_path"] = tomllib.loads((folder / "base.toml").read_text(encoding="utf-8-sig"))["repo"]
    return {CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}


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
    from huggingface_hub import CommitOperationAdd, HfApi, utils

    _check_token()
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    api = HfApi()
    weights = next(content for name, content in sorted(files.items()) if name.endswith(".gguf"))
    with _hub_errors(repo, api.endpoint):
        operations = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in sorted(files.items())
        ]
        made = api.create_repo(repo, repo_type="model", private=private or None, exist_ok=True).repo_id
        if private and not api.model_info(made).private:
            raise UserError(f"{made}: is a public repository already; make it private in its settings, or name another")
        message = f"Model {Path(str(weights)).name}"
        return str(api.create_commit(made, operations, commit_message=message, repo_type="model").commit_url)


def check_name(repo: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo) or ".." in repo or "--" in repo:
        raise UserError(f"{repo!r} is no repository's name, wanted OWNER/NAME")


def _check_token() -> None:
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError("no Hugging Face token: `hf auth login`, or set HF_TOKEN to a token that may write")
    if not re.fullmatch("[!-~]+", token):  # httpx would refuse it, and print it
        raise UserError("the Hugging Face token holds a blank or a letter that no token has; set HF_TOKEN anew")


@contextlib.contextmanager
def _hub_errors(repo: str, endpoint: str) -> Iterator[None]:
    """What goes wrong on the way to the Hub, in one line with what would do."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    again = "; the same command again sends what is missing"
    try:
        yield
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or error.response.reason_phrase
        raise UserError(f"{repo}: not published: {endpoint} answers {status} ({said}): {_cure(status, repo)}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{repo}: not published: HF_HUB_OFFLINE is set; unset it") from None
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{repo}: not published: no answer from {endpoint} ({reason}): look at the network{again}"
        ) from None
    except (RuntimeError, ValueError) as error:  # of a large file's upload, or the Hub's own word on the card
        raise UserError(f"{repo}: not published: {error} {error.__cause__ or ''}{again}") from None


def _cure(status: int, repo: str) -> str:
    if status == 401:
        return "the token is not valid; `hf auth login` with a new one, or set HF_TOKEN"
    if status in (403, 404):
        owner = repo.partition("/")[0]
        return f"the token may not write there; take one that may write for {owner}, or name a repository of your own"
    return "try again later" if status in (409, 412, 429) or status >= 500 else "mend what the answer names"


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

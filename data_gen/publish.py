"""A finished dataset folder -> a datasets.DatasetDict on disk, or a dataset repository on the Hugging Face Hub.

python -m data_gen.publish artifacts/terminology/dataset --save-to-disk DIR --push OWNER/NAME --private
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.contract import Contract, load_contract
from contract.example import SPLITS
from data_gen.card import Shape, shape
from data_gen.certify import certify_folder
from data_gen.folder import digest
from data_gen.leaks.certificate import check
from plumbing.errors import UserError, run
from plumbing.handover import (
    MANIFEST,
    Manifest,
    check_outputs,
    check_replaceable,
    new_folder,
    read_manifest,
    write_manifest,
)
from plumbing.hub import check_push, hub_errors
from plumbing.jsonl import read_lines

if TYPE_CHECKING:
    import datasets

STAGE = "save_to_disk"  # of the folder that save_to_disk makes
CERTIFICATE = "certificate.json"


def main() -> None:
    args = _parser().parse_args()
    folder = Path(args.folder)
    if args.private and not args.push:
        raise UserError("--private says what --push makes: add --push OWNER/NAME")
    if not args.save_to_disk and not args.push:
        raise UserError("nothing to do: name a folder with --save-to-disk, or a repository with --push")
    check_finished(folder)
    if args.push:
        check_push(args.push)
    if args.save_to_disk:
        save_to_disk(folder, Path(args.save_to_disk))
        print(f"{args.save_to_disk}: datasets.load_from_disk({args.save_to_disk!r}) reads it")
    if args.push:
        for name in left_out(folder):
            print(f"left out, as {MANIFEST} does not name it: {name}")
        print(push(folder, args.push, args.private))


def check_finished(folder: Path) -> Manifest:
    """The folder's manifest.  Raises UserError unless every file is as data_gen wrote it and the splits do not meet.

    The certificate is made anew: what a manifest says can be edited.
    """
    manifest = read_manifest(folder, "dataset")
    check_outputs(folder, manifest)
    wanted = {CERTIFICATE, "README.md", "task.toml", "concepts.json", *(f"{name}.jsonl" for name in SPLITS)}
    missing = wanted - manifest["outputs"].keys()
    if missing:
        raise UserError(f"{folder}: without {', '.join(sorted(missing))}: make the dataset again, then publish it")
    certificate = certify_folder(folder)
    check(certificate)
    if certificate.to_json() != (folder / CERTIFICATE).read_text(encoding="utf-8"):
        raise UserError(f"{folder / CERTIFICATE}: not the certificate of these rows: make the dataset again")
    return manifest


def left_out(folder: Path) -> list[str]:
    """The files below the folder that its manifest does not name: they are never published."""
    named = {MANIFEST, *read_manifest(folder, "dataset")["outputs"]}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(found - named)


def features(contract: Contract) -> datasets.Features:
    """The columns' types: text, but for keywords (a list) and the record (a struct by the kinds of the sections).

    Categories and choices stay text, as `load_dataset("json")` reads them, and are no ClassLabel.
    """
    import datasets

    def typed(of: Shape) -> Any:
        if isinstance(of, dict):
            return {name: typed(inner) for name, inner in of.items()}
        return datasets.List(typed(of[0])) if isinstance(of, list) else datasets.Value(of)

    return datasets.Features(typed(shape(contract)))


def save_to_disk(folder: Path, target: Path) -> None:
    """Write `datasets.load_from_disk(target)`, with card, licences and a manifest of its own beside the tables.

    The target appears whole or not at all; a second run replaces what the first one made, and nothing else.
    """
    import datasets

    started = time.monotonic()
    manifest = check_finished(folder)
    check_target(folder, target)
    typed = features(load_contract(folder / "task.toml"))
    _bars_on_a_terminal_alone(datasets)
    with (
        new_folder(target, STAGE) as partial,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache,
    ):  # from disk to disk: any size
        tables = datasets.DatasetDict(
            {
                name: datasets.Dataset.from_generator(
                    _rows, typed, cache, gen_kwargs={"path": folder / f"{name}.jsonl"}, split=name
                )
                for name in SPLITS
            }
        )
        tables.save_to_disk(partial)
        for name in manifest["outputs"].keys() - {f"{split}.jsonl" for split in SPLITS}:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, partial / name)
        counts = {name: len(table) for name, table in tables.items()}
        write_manifest(partial, STAGE, {"dataset": digest(folder)}, {}, counts, ("datasets",), started)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows as they are: a JSON reader that guesses types would make a time of a text that looks like one."""
    yield from (row for _, row, _ in read_lines(path))


def check_target(folder: Path, target: Path) -> None:
    """Raises UserError when save_to_disk would replace anything but what it made before."""
    here, there = folder.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{target}: is, holds or stands in the dataset folder {folder}; name another folder")
    check_replaceable(target, STAGE)


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Publish the folder as dataset repository `repo` (NAME or OWNER/NAME) in one commit; the commit's address.

    All files that the manifest names go there, and the manifest; other files in the repository stay.  The token is
    huggingface_hub's own business (HF_TOKEN or `hf auth login`), and so is the address (HF_ENDPOINT).
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, HfApi, utils

    manifest = check_finished(folder)
    check_push(repo)
    # Not upload_folder: where it may, that parts a folder into several commits, and a failure then leaves half of it.
    files = [CommitOperationAdd(name, folder / name) for name in sorted([MANIFEST, *manifest["outputs"]])]
    message = f"Dataset with sha256 {digest(folder)}"
    api = HfApi()
    _bars_on_a_terminal_alone(utils)
    with hub_errors(repo, api.endpoint, httpx.TransportError):
        made = api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True).repo_id
        if private and not api.dataset_info(made).private:
            raise UserError(f"{made}: is a public repository already; make it private in its settings, or name another")
        commit = api.create_commit(made, files, commit_message=message, repo_type="dataset")
    return str(commit.commit_url)


def _bars_on_a_terminal_alone(library: Any) -> None:
    """No progress bars into files and pipes."""
    if not sys.stderr.isatty():
        library.disable_progress_bars()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.publish", description="Publish a finished dataset folder."
    )
    parser.add_argument("folder", help="what `python -m data_gen TASK --out` made")
    parser.add_argument("--save-to-disk", metavar="DIR", help="write it for datasets.load_from_disk")
    parser.add_argument("--push", metavar="REPO", help="publish it on the Hugging Face Hub as OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    return parser


if __name__ == "__main__":
    run(main)

"""A finished dataset's folder -> its contract and its rows, checked to be a fair measure."""

from __future__ import annotations

from pathlib import Path

from contract.contract import Contract, load_contract
from contract.example import SPLITS, Example, read_splits
from eval.exam.leak_checks import check_dataset
from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest


def read_data(folder: Path, split: str) -> tuple[Contract, dict[str, list[Example]]]:
    """The task's contract and the dataset's checked rows.  Raises UserError when they are not a fair measure."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such dataset; `python -m data_gen terminology --out {folder}` makes one")
    if not (folder / f"{split}.jsonl").is_file():
        raise UserError(
            f"{folder}: no {split} split there ({split}.jsonl); `python -m data_gen` writes all of {', '.join(SPLITS)}"
        )
    manifest = read_manifest(folder, "dataset")
    check_outputs(folder, manifest)
    contract = load_contract(folder / "task.toml")
    splits = read_splits(folder, contract)
    check_dataset(folder, manifest, splits)
    return contract, splits

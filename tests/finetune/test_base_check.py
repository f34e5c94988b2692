"""finetune/base_check.py: a base that was fetched in part, or put together from two, is refused before it is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from contract.base import load_base
from finetune.base_check import check_trainable
from models.base_folder import find_base_folder
from plumbing.errors import UserError

TINY = load_base("tiny")
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
    assert check_trainable(small_base, TINY).layers == 2
    assert check_trainable(find_base_folder(TINY), TINY).layers == 6
    smollm = load_base("smollm2_135m_instruct")
    assert check_trainable(find_base_folder(smollm), smollm).layers == 30


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (cut("model.safetensors", 100_000), "model.safetensors: not a whole safetensors file"),
        (cut("model.safetensors", 0), "model.safetensors: not a whole safetensors file"),
        (cut("tokenizer.model", 5000), "tokenizer.model: not a SentencePiece model"),
        (cut("tokenizer.model", 0), "tokenizer.model: not a SentencePiece model"),
        (
            configure(num_hidden_layers=3),
            r"the base lacks model.layers.2.input_layernorm.weight; .* \(and 6 more\): fetch it again",
        ),
        (
            configure(hidden_size=512, head_dim=64),
            "holds model.embed_tokens.weight as 1024 x 256, config.json says 1024 x 512",
        ),
        (configure(vocab_size=512), "the tokenizer has 1024 tokens, config.json says at most 512"),
        (configure(model_type="phi9"), "transformers cannot read it: The checkpoint"),
        (configure(hidden_size=None), "hidden is None, expected a whole number above 0"),
        (configure(initializer_range="x"), "transformers cannot read it: "),
        (lose("model.layers.1.mlp.up_proj.weight"), "the base lacks model.layers.1.mlp.up_proj.weight: fetch it again"),
    ],
)
def test_what_does_not_fit_is_named(small_base: Path, tmp_path: Path, spoil: Spoil, wanted: str) -> None:
    base = Path(shutil.copytree(small_base, tmp_path / "base"))
    spoil(base)
    with pytest.raises(UserError, match=wanted):
        check_trainable(base, TINY)

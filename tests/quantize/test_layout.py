"""quantize.layout and quantize.vocabulary: how tensors and tokens are placed in a GGUF; quantize.recipe's rules."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.base import load_base
from models.shape import read_shape
from plumbing.errors import UserError
from quantize.layout import place
from quantize.recipe import RECIPES, choose
from quantize.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, read_vocabulary
from tests.models.test_shape import gemma

TINY = load_base("tiny")


@pytest.fixture
def base(small_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_base, tmp_path / "base"))


def test_llama_cpp_expects_one_more_in_gemmas_norms(tmp_path: Path) -> None:
    shape = read_shape(gemma(tmp_path))
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.input_layernorm", "model.norm", "model.embed_tokens"]
    placed = {p.name: (p.heads, p.offset) for p in place(shape, [f"{name}.weight" for name in names])}
    assert placed == {
        "token_embd.weight": (0, 0.0), "blk.0.attn_norm.weight": (0, 1.0), "blk.0.attn_q.weight": (0, 0.0),
        "output_norm.weight": (0, 1.0),
    }  # fmt: skip


def test_tensors_are_placed_in_the_files_order(base: Path) -> None:
    shape = dataclasses.replace(read_shape(base), layers=11)
    names = [
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.10.mlp.up_proj.weight",
        "model.layers.2.self_attn.rotary_emb.inv_freq",
        "model.layers.2.self_attn.k_proj.weight",
        "model.embed_tokens.weight",
    ]
    placed = place(shape, names)
    assert [(p.name, p.heads) for p in placed] == [
        ("token_embd.weight", 0),
        ("blk.2.attn_k.weight", 2),
        ("blk.10.ffn_up.weight", 0),
        ("output_norm.weight", 0),
    ]
    untied = place(dataclasses.replace(shape, tied=False), names)
    assert [p.name for p in untied][-2:] == ["output.weight", "output_norm.weight"]
    with pytest.raises(UserError, match=r"1 tensors of the base are unknown to 'llama', such as model\.vision\.weight"):
        place(shape, [*names, "model.vision.weight"])


def test_the_vocabulary_is_that_of_the_tokenizer(base: Path) -> None:
    vocabulary = read_vocabulary(base, TINY, 1030)
    assert vocabulary.pieces[:5] == ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    assert vocabulary.types[:6] == [CONTROL] * 5 + [
        BYTE
    ]  # <unk> too, as tokenizer_config.json says and llama.cpp's converter does
    assert (vocabulary.bos, vocabulary.eos, vocabulary.unknown, vocabulary.pad) == (1, 2, 0, 0)
    assert len(set(vocabulary.scores)) > 500  # scores that are all alike would tokenise every prompt wrongly
    assert vocabulary.types[1023] == NORMAL and vocabulary.types[1024:] == [UNUSED] * 6
    assert vocabulary.pieces[1024:] == [f"[PAD{n}]" for n in range(1024, 1030)]


def test_a_users_own_pieces_stand_as_they_are_in_a_text(tmp_path: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words, some of them long"]), model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=40, model_type="bpe", user_defined_symbols=["<a>", "▁▁"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    vocabulary = read_vocabulary(tmp_path, dataclasses.replace(TINY, pad="<unk>"), 64)
    assert dict(zip(vocabulary.pieces, vocabulary.types, strict=True)).items() >= {
        "<unk>": UNKNOWN, "<s>": CONTROL, "<a>": USER_DEFINED, "  ": USER_DEFINED, "▁": NORMAL, "[PAD63]": UNUSED,
    }.items()  # fmt: skip


def added(folder: Path, entries: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))


def test_added_tokens_follow_the_pieces(base: Path) -> None:
    added(
        base,
        {
            "1025": {"content": "<b>"},
            "1024": {"content": "<a>", "special": True},
            "4": {"content": "[/INST]", "special": False},
        },
    )
    vocabulary = read_vocabulary(base, TINY, 1026)
    assert vocabulary.pieces[1024:] == ["<a>", "<b>"]
    assert vocabulary.types[1024:] == [CONTROL, USER_DEFINED] and vocabulary.types[4] == USER_DEFINED
    assert vocabulary.types[0] == UNKNOWN


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda b: (b / "tokenizer.model").write_bytes(b"no model"), "not a SentencePiece model"),
        (lambda b: (b / "tokenizer_config.json").write_text("["), "not a tokenizer's config"),
        (lambda b: added(b, {"7": {"special": True}}), "not a tokenizer's config"),
        (lambda b: added(b, {"7": {"content": "<a>"}}), "token 7 is not piece 7"),
        (lambda b: added(b, {"1030": {"content": "<a>"}}), "token 1030 is not piece 1030"),
        (lambda b: added(b, {"1024": {"content": "<a>"}}), "has 1025 pieces, the model only 1024"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(base: Path, spoil: Callable[[Path], Any], told: str) -> None:
    spoil(base)
    with pytest.raises(UserError, match=told):
        read_vocabulary(base, TINY, 1024)


def test_a_stop_that_is_no_single_piece_is_refused(small_base: Path) -> None:
    with pytest.raises(UserError, match=r"has no token '<end_of_turn>', which base\.toml names"):
        read_vocabulary(small_base, dataclasses.replace(TINY, stop="<end_of_turn>"), 1024)


# The 32 layers of a 7B: llama.cpp gives more bits to the first and last four and to every third between.
BETTER = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


@pytest.mark.parametrize("part", ["attn_v", "ffn_down"])
@pytest.mark.parametrize(("kind", "default"), [("q4_k_m", "Q4_K"), ("q5_k_m", "Q5_K")])
def test_the_recipe_over_the_layers_of_a_7b(part: str, kind: str, default: str) -> None:
    chosen = [choose(RECIPES[kind], f"blk.{i}.{part}.weight", (4096, 4096), 32, tied=False) for i in range(32)]
    assert [i for i, c in enumerate(chosen) if c == "Q6_K"] == BETTER
    assert {c for i, c in enumerate(chosen) if i not in BETTER} == {default}


@pytest.mark.parametrize(
    ("kind", "part", "chosen"),
    [
        ("q3_k_m", "attn_v", {"Q5_K": 2, "Q4_K": 30}),
        ("q3_k_m", "attn_output", {"Q4_K": 32}),
        ("q3_k_m", "ffn_down", {"Q5_K": 2, "Q4_K": 30}),
        ("q3_k_m", "ffn_up", {"Q3_K": 32}),
        ("q4_k_s", "attn_v", {"Q5_K": 4, "Q4_K": 28}),
        ("q4_k_s", "ffn_down", {"Q5_K": 4, "Q4_K": 28}),
        ("q5_k_s", "attn_v", {"Q5_K": 32}),
    ],
)
def test_the_first_layers_of_a_7b_get_more_bits(kind: str, part: str, chosen: dict[str, int]) -> None:
    kinds = [choose(RECIPES[kind], f"blk.{i}.{part}.weight", (4096, 4096), 32, tied=False) for i in range(32)]
    assert {k: kinds.count(k) for k in kinds} == chosen and kinds == sorted(kinds, key=list(chosen).index)


def test_every_type_is_known_to_gguf_with_the_blocks_we_take_it_to_have() -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

    from quantize.recipe import BLOCK, FALLBACK

    assert {name: GGML_QUANT_SIZES[GGMLQuantizationType[name]][0] for name in BLOCK} == BLOCK
    assert set(FALLBACK) | set(FALLBACK.values()) <= set(BLOCK)
    assert {LlamaFileType[recipe.file_type].value for recipe in RECIPES.values()} == {12, 14, 15, 16, 17, 18, 7, 1, 32}

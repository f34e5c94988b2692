"""quantize.families and quantize.vocabulary: what a base's files say, and what is refused; quantize.recipe's rules."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.base import load_base
from models.tensors import open_base
from plumbing.errors import UserError
from quantize.families import check_tensors, place, read_shape
from quantize.recipe import RECIPES, choose
from quantize.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, read_vocabulary

TINY = load_base("tiny")


@pytest.fixture
def base(small_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_base, tmp_path / "base"))


def config(folder: Path, drop: str = "", **changes: Any) -> None:
    path = folder / "config.json"
    table = json.loads(path.read_text()) | changes
    table.pop(drop, None)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("changes", "drop", "theta"),
    [
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "", 1e6),  # transformers 5
        ({"rope_theta": 1e6, "rope_scaling": None}, "rope_parameters", 1e6),  # transformers 4
        ({}, "rope_parameters", 1e4),  # the default of both
    ],
)
def test_the_rotation_base_is_read_from_either_place(
    base: Path, changes: dict[str, Any], drop: str, theta: float
) -> None:
    config(base, drop, **changes)
    assert read_shape(base).rope_theta == theta


def test_the_shape_of_a_base(base: Path) -> None:
    shape = dataclasses.asdict(read_shape(base))
    assert shape == {
        "arch": "llama", "layers": 2, "hidden": 256, "feed_forward": 512, "heads": 4, "kv_heads": 2, "head_size": 64,
        "vocabulary": 1024, "context": 1024, "rms_eps": 1e-6, "rope_theta": 10000.0, "tied": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "drop", "told"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "",
            "GPT2LMHeadModel cannot be exported (known: MistralForCausalLM, LlamaForCausalLM, GemmaForCausalLM)",
        ),
        ({"architectures": []}, "", "names no architecture"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "", "rope scaling 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_parameters", "rope scaling 'linear'"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "", "hidden_act is 'gelu_pytorch_tanh' (supported: silu)"),
        ({"hidden_act": "gelu", "sliding_window": 64}, "", "2 faults: sliding_window is 64, llama.cpp would look back"),
        ({"partial_rotary_factor": 0.5}, "", "partial_rotary_factor is 0.5"),
        ({"num_hidden_layers": "2"}, "", "layers is '2', wanted a whole number above 0"),
        ({"num_hidden_layers": True}, "", "layers is True"),
        ({"max_position_embeddings": 2**40}, "", "context is 1099511627776"),
        ({"rms_norm_eps": float("nan")}, "", "rms_eps is nan, wanted a number above 0"),
        ({"num_attention_heads": 3}, "", "3 heads of 64 cannot share 2 of keys and values"),
        ({"head_dim": 63}, "", "4 heads of 63"),
        ({"architectures": "MistralForCausalLM"}, "", "names no architecture"),
        ({}, "rms_norm_eps", "no usable 'rms_norm_eps'"),
    ],
)
def test_a_base_that_llama_cpp_could_not_run_as_trained_is_refused(
    base: Path, changes: dict[str, Any], drop: str, told: str
) -> None:
    config(base, drop, **changes)
    with pytest.raises(UserError) as error:
        read_shape(base)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 3}, "the base lacks blk.2.attn_norm.weight; lacks blk.2.attn_q.weight; lacks "),
        ({"tie_word_embeddings": False}, "the base lacks output.weight: fetch it again, all files from one place"),
        ({"intermediate_size": 500}, "mlp.down_proj.weight as 256 x 512, config.json says 256 x 500; holds "),
        ({"hidden_size": 128}, "holds model.embed_tokens.weight as 1024 x 256, config.json says 1024 x 128; holds "),
        ({"num_key_value_heads": 4}, "k_proj.weight as 128 x 256, config.json says 256 x 256; holds "),
        ({"head_dim": 32}, "o_proj.weight as 256 x 256, config.json says 256 x 128; holds "),
        ({"vocab_size": 2000}, "embed_tokens.weight as 1024 x 256, config.json says 2000 x 256: fetch it again"),
    ],
)
def test_tensors_that_are_not_the_models_of_config_json_are_refused(
    base: Path, changes: dict[str, Any], told: str
) -> None:
    sizes = {name: tensor.shape for name, tensor in open_base(base).items()}
    check_tensors(read_shape(base), place(read_shape(base), sizes), sizes)
    config(base, **changes)
    with pytest.raises(UserError) as error:
        check_tensors(read_shape(base), place(read_shape(base), sizes), sizes)
    assert told in str(error.value)


def test_a_bias_has_the_rows_of_its_weight(base: Path) -> None:
    shape, sizes = read_shape(base), {name: tensor.shape for name, tensor in open_base(base).items()}
    sizes["model.layers.0.self_attn.q_proj.bias"] = (256,)
    check_tensors(shape, place(shape, sizes), sizes)
    sizes["model.layers.0.self_attn.q_proj.bias"] = (128,)
    with pytest.raises(UserError, match=r"q_proj\.bias as 128, config\.json says 256"):
        check_tensors(shape, place(shape, sizes), sizes)


def gemma(folder: Path, drop: str = "", **changes: Any) -> Path:
    """config.json as Gemma-2B's: what GemmaConfig has by default is not in it."""
    table = {
        "architectures": ["GemmaForCausalLM"], "num_hidden_layers": 18, "hidden_size": 2048, "intermediate_size": 16384,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh",
    } | changes  # fmt: skip
    table.pop(drop, None)
    (folder / "config.json").write_text(json.dumps(table))
    return folder


def test_gemmas_shape_and_what_llama_cpp_wants_of_its_norms(tmp_path: Path) -> None:
    shape = read_shape(gemma(tmp_path))
    assert (shape.arch, shape.tied, shape.head_size, shape.kv_heads) == ("gemma", True, 256, 1)
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.input_layernorm", "model.norm", "model.embed_tokens"]
    placed = {p.name: (p.heads, p.offset) for p in place(shape, [f"{name}.weight" for name in names])}
    assert placed == {
        "token_embd.weight": (0, 0.0), "blk.0.attn_norm.weight": (0, 1.0), "blk.0.attn_q.weight": (0, 0.0),
        "output_norm.weight": (0, 1.0),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "drop", "told"),
    [
        ({"hidden_act": "gelu"}, "hidden_activation", "hidden_act is 'gelu' (supported: gelu_pytorch_tanh)"),
        ({"hidden_activation": "silu"}, "", "hidden_activation is 'silu' (supported: gelu_pytorch_tanh)"),
        ({"tie_word_embeddings": False}, "", "tie_word_embeddings is false"),
    ],
)
def test_a_gemma_that_llama_cpp_could_not_run_as_trained_is_refused(
    tmp_path: Path, changes: dict[str, Any], drop: str, told: str
) -> None:
    with pytest.raises(UserError) as error:
        read_shape(gemma(tmp_path, drop, **changes))
    assert told in str(error.value)


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
        (lambda b: added(b, {"7": {"content": "<a>"}}), "token 7 is no piece 7"),
        (lambda b: added(b, {"1030": {"content": "<a>"}}), "token 1030 is no piece 1030"),
        (lambda b: added(b, {"1024": {"content": "<a>"}}), "has 1025 pieces, the model only 1024"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(base: Path, spoil: Callable[[Path], Any], told: str) -> None:
    spoil(base)
    with pytest.raises(UserError, match=told):
        read_vocabulary(base, TINY, 1024)


def test_a_stop_that_is_no_single_piece_is_refused(small_base: Path) -> None:
    with pytest.raises(UserError, match=r"no piece '<end_of_turn>', which base\.toml names"):
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

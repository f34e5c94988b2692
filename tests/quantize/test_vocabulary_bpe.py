"""quantize.vocabulary_bpe: what llama.cpp gets of a tokenizer.json, the proof of equal ids, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.base import Base, load_base
from eval.parity.checks import _tokenizer_pairs
from models.base_folder import find_base_folder
from models.conversations import CONVERSATIONS
from plumbing.errors import UserError
from quantize.vocabulary import CONTROL, NORMAL, UNUSED
from quantize.vocabulary_bpe import prove_equal_ids, read_bpe_vocabulary

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("smollm2_135m_instruct")


@pytest.fixture(scope="module")
def folder(base: Base) -> Path:
    return find_base_folder(base)


@pytest.fixture
def table(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return found


def saved(place: Path, table: Any) -> Path:
    (place / "tokenizer.json").write_text(json.dumps(table), encoding="utf-8")
    return place


def test_ids_equal_over_the_conversations(base: Base, folder: Path) -> None:
    vocabulary = read_bpe_vocabulary(folder, base, 49152)
    assert (vocabulary.model, vocabulary.pre, len(vocabulary.merges)) == ("gpt2", "smollm", 48900)
    assert (vocabulary.bos, vocabulary.eos, vocabulary.pad) == (None, 2, 0)
    assert vocabulary.types[:18] == [CONTROL] * 17 + [NORMAL]
    assert prove_equal_ids(vocabulary, folder, base, map(base.prompt, CONVERSATIONS.values())) >= 240


def test_another_rule_of_cutting_is_found(base: Base, folder: Path) -> None:
    wrong = dataclasses.replace(read_bpe_vocabulary(folder, base, 49152), pre="llama-bpe")
    with pytest.raises(UserError, match=r"'llama-bpe'\) cuts .* into other tokens .*it cannot be exported"):
        prove_equal_ids(wrong, folder, base, map(base.prompt, CONVERSATIONS.values()))


@pytest.mark.parametrize(("pattern", "pre"), [(LLAMA3, "llama-bpe"), (LLAMA3.replace("{1,3}", ""), "qwen2")])
def test_families_are_known_by_how_they_cut(
    base: Base, table: dict[str, Any], tmp_path: Path, pattern: str, pre: str
) -> None:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    alone = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    table["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, alone]}
    vocabulary = read_bpe_vocabulary(saved(tmp_path, table), base, 49152)
    assert vocabulary.pre == pre
    texts = [text["content"] for turns in CONVERSATIONS.values() for text in turns]
    assert prove_equal_ids(vocabulary, tmp_path, base, texts) > 240


def test_rows_of_the_embedding_without_a_token_are_filled(base: Base, folder: Path) -> None:
    vocabulary = read_bpe_vocabulary(folder, base, 49160)
    assert vocabulary.pieces[-1] == "[PAD49159]" and vocabulary.types[-8:] == [UNUSED] * 8


BAD: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another model": (lambda t: t["model"].update(type="Unigram"), "the model is 'Unigram', expected BPE"),
    "byte fallback": (lambda t: t["model"].update(byte_fallback=True), "so it is a SentencePiece model"),
    "no merges": (lambda t: t["model"].update(merges=[]), "has no merges or no tokens"),
    "no vocabulary": (lambda t: t["model"].pop("vocab"), "has no merges or no tokens"),
    "no model": (lambda t: t.pop("model"), "not a tokenizer"),
    "another cutting": (
        lambda t: t.update(pre_tokenizer={"type": "Whitespace"}),
        "llama.cpp has no rule that cuts text as this one does: Whitespace",
    ),
    "a token without an id": (lambda t: t["added_tokens"][0].pop("id"), "an added token lacks id"),
    "no stop": (lambda t: t["added_tokens"][2].update(content="<|end|>"), "has no token '<|im_end|>'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tokenizer_is_one_line(base: Base, table: dict[str, Any], tmp_path: Path, name: str) -> None:
    change, cause = BAD[name]
    change(table)
    with pytest.raises(UserError, match=cause) as error:
        read_bpe_vocabulary(saved(tmp_path, table), base, 49152)
    assert "\n" not in str(error.value)


def test_more_tokens_than_rows_is_one_line(base: Base, folder: Path) -> None:
    with pytest.raises(UserError, match="49152 tokens, the embedding has only 49000 rows"):
        read_bpe_vocabulary(folder, base, 49000)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_not_a_tokenizer_is_one_line(base: Base, tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="not a tokenizer; fetch the base again"):
        read_bpe_vocabulary(tmp_path, base, 49152)


def test_parity_looks_for_the_merges_of_a_byte_level_bpe(base: Base) -> None:
    held = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False}
    names = {name: (trained, served) for name, trained, served in _tokenizer_pairs(base, held)}
    assert names["gguf merges"] == (True, False) and "gguf scores" not in names
    whole = _tokenizer_pairs(base, held | {"tokenizer.ggml.merges": ["a b"]})
    assert all(trained == served for _, trained, served in whole)

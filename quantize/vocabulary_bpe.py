"""A byte-level BPE tokenizer.json -> llama.cpp's tokens, types and merges, with proof of equal ids."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contract.base import Base
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError, faults_error
from quantize.vocabulary import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary, token_number

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a tokenizer.json cuts text before BPE -> llama.cpp's name of the same rule (llama-vocab.cpp).
PRE_TOKENIZERS = {
    ("byte level",): "gpt-2",
    ("digits one by one", "byte level"): "smollm",
    (_LLAMA3,): "llama-bpe",
    (_LLAMA3.replace("{1,3}", ""),): "qwen2",
    (_TEKKEN,): "tekken",
}


def read_bpe_vocabulary(folder: Path, base: Base, size: int) -> Vocabulary:
    """The vocabulary, filled up to the `size` that the embedding has.

    Raises UserError when the file is not a byte-level BPE, is not whole, or is cut by a rule that llama.cpp lacks.
    """
    path = folder / "tokenizer.json"
    table = _read(path)
    pre = _pre_tokenizer(table, path)
    tokens = {number: (text, NORMAL) for text, number in table["model"]["vocab"].items()}
    for entry in table["added_tokens"]:
        tokens[entry["id"]] = (entry["content"], CONTROL if entry["special"] else USER_DEFINED)
    last = max(tokens)
    if last >= size:
        raise UserError(f"{path}: {last + 1} tokens, the embedding has only {size} rows; fetch both from one place")
    filled = [tokens.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]
    pieces = [text for text, _ in filled]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in table["model"]["merges"]]
    bos = _first_token(table) if base.add_bos else None
    return Vocabulary(
        pieces=pieces, types=[kind for _, kind in filled], model="gpt2", pre=pre, merges=merges, bos=bos,
        eos=token_number(pieces, base.stop, path), pad=token_number(pieces, base.pad, path),
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        model = table["model"]
        kind, vocabulary, merges = model.get("type"), model.get("vocab"), model.get("merges")
        added = table.setdefault("added_tokens", [])
        known = all({"id", "content", "special"} <= entry.keys() for entry in added)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a tokenizer; fetch the base again") from None
    faults = []
    if kind != "BPE":
        faults.append(f"the model is '{kind}', expected BPE; a SentencePiece base needs tokenizer.model instead")
    elif model.get("byte_fallback"):
        faults.append("the model falls back to bytes, so it is a SentencePiece model; copy its tokenizer.model here")
    elif not merges or not isinstance(vocabulary, dict) or not vocabulary:
        faults.append("the model has no merges or no tokens; fetch the base again")
    if not known:
        faults.append("an added token lacks id, content or special; fetch the base again")
    if faults:
        raise faults_error(str(path), faults)
    return table


def _pre_tokenizer(table: dict[str, Any], path: Path) -> str:
    """llama.cpp's name of the rule by which the text is cut before BPE.  Raises UserError when it has none."""
    pre = table.get("pre_tokenizer") or {}
    steps = tuple(_step(step) for step in pre.get("pretokenizers", [pre]))
    steps = tuple(step for step in steps if step != "bytes alone")
    if steps not in PRE_TOKENIZERS:
        raise UserError(f"{path}: llama.cpp has no rule that cuts text as this one does: {' then '.join(steps)[:200]}")
    return PRE_TOKENIZERS[steps]


def _step(step: dict[str, Any]) -> str:
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return "byte level" if step.get("use_regex", True) else "bytes alone"
    if kind == "Digits" and step.get("individual_digits"):
        return "digits one by one"
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return str(step["pattern"].get("Regex", step["pattern"]))
    return f"{kind} {json.dumps({k: v for k, v in step.items() if k != 'type'})}"


def _first_token(table: dict[str, Any]) -> int | None:
    """The id that the tokenizer's post-processor puts first."""
    processors = table.get("post_processor") or {}
    for processor in processors.get("processors", [processors]):
        for part in processor.get("single") or []:
            if "SpecialToken" in part:
                name = part["SpecialToken"]["id"]
                return int(processor["special_tokens"][name]["ids"][0])
    return None


def prove_equal_ids(vocabulary: Vocabulary, folder: Path, base: Base, texts: Iterable[str]) -> int:
    """How many texts llama.cpp cuts into the same ids as the training tokenizer.  Raises UserError at the first other.

    llama.cpp reads a GGUF that holds the vocabulary alone.
    """
    from gguf import GGUFWriter
    from llama_cpp import Llama

    tokenizer, count = load_tokenizer(folder, base), 0
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "vocabulary.gguf"
        writer = GGUFWriter(path, "llama")
        vocabulary.write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        llama = Llama(str(path), vocab_only=True, verbose=False)
        try:
            for text in texts:
                served = llama.tokenize(text.encode(), add_bos=False, special=True)
                trained = tokenizer(text, add_special_tokens=False)["input_ids"]
                if served != trained:
                    raise UserError(
                        f"{folder}: llama.cpp ('{vocabulary.pre}') cuts {text[:60]!r} into other tokens than this "
                        "base's tokenizer.json: answers would differ from training; it cannot be exported"
                    )
                count += 1
        finally:
            llama.close()
    return count

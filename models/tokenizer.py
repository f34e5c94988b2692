"""A base's folder -> its tokenizer in transformers, cutting text as llama.cpp cuts it for whoever is served.

transformers has two ways to treat spaces, by the file that a folder brings; neither is llama.cpp's for every family.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from contract.base import Base
from plumbing.errors import UserError

SPACE = "\u2581"  # what SentencePiece writes for a space


def load_tokenizer(folder: Path, base: Base) -> Any:
    """The tokenizer of the folder's tokenizer.model, or of its tokenizer.json where the base says "bpe"."""
    tokenizer = _byte_level(folder, base) if base.tokenizer == "bpe" else _sentencepiece(folder, base)
    tokenizer.name_or_path = str(folder)
    tokenizer.pad_token = base.pad  # never the stop: that would mask the stop too
    return tokenizer


def _byte_level(folder: Path, base: Base) -> Any:
    """Byte-level BPE as its tokenizer.json says; llama.cpp's equal cutting is proven by quantize.vocabulary_bpe."""
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    try:
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path), eos_token=base.stop, clean_up_tokenization_spaces=False
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise UserError(f"{path}: not a tokenizer ({str(error)[:120]}); fetch the base again") from None


def _sentencepiece(folder: Path, base: Base) -> Any:
    """The tokenizer of the folder's SentencePiece model.  Its begin-of-sequence token comes by add_special_tokens=True.

    With `base.add_space_prefix` a space goes ahead of the text and of what follows each control token.  A user's own
    piece (Gemma's runs of spaces) is found before all others, the longest first.
    """
    from tokenizers import AddedToken, normalizers
    from transformers import LlamaTokenizer

    with tempfile.TemporaryDirectory() as alone:  # beside a tokenizer.json the users' own pieces would be lost
        for name in ("tokenizer.model", "tokenizer_config.json"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(alone) / name)
        try:
            tokenizer = LlamaTokenizer.from_pretrained(alone, add_bos_token=base.add_bos, add_eos_token=False)
        except Exception:  # sentencepiece's, protobuf's and transformers' readers each raise their own kinds
            path = folder / "tokenizer.model"
            raise UserError(f"{path}: not a SentencePiece model; fetch the base again") from None
    backend = tokenizer.backend_tokenizer
    ahead = [normalizers.Prepend(SPACE)] if base.add_space_prefix else []
    backend.normalizer = normalizers.Sequence([*ahead, normalizers.Replace(" ", SPACE)])
    backend.pre_tokenizer = None
    own = [token.content for token in tokenizer.added_tokens_decoder.values() if SPACE in token.content]
    backend.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in own])
    return tokenizer

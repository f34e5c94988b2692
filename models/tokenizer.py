"""Load a base's tokenizer so that it produces exactly the token ids llama.cpp does when serving.

transformers treats spaces in one of two ways, depending on the files in the folder.  Neither is llama.cpp's for every
family, so the rules are set here.
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
    """The tokenizer of the folder's tokenizer.model, or of its tokenizer.json if the base says "bpe".

    `add_special_tokens=True` adds the begin-of-sequence token.
    """
    tokenizer = _byte_level(folder, base) if base.tokenizer == "bpe" else _sentencepiece(folder, base)
    tokenizer.name_or_path = str(folder)
    tokenizer.pad_token = base.pad  # never the stop: that would mask the stop too
    return tokenizer


def _byte_level(folder: Path, base: Base) -> Any:
    """Byte-level BPE as tokenizer.json says.  quantize/vocabulary_bpe.py proves that llama.cpp gives the same ids."""
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    try:
        return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(path), eos_token=base.stop, clean_up_tokenization_spaces=False
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise UserError(f"{path}: not a tokenizer ({str(error)[:120]}); fetch the base again") from None


def _sentencepiece(folder: Path, base: Base) -> Any:
    """A SentencePiece model, with spaces treated as llama.cpp does.

    With `base.add_space_prefix` a space is put before the text and before what follows each control token.  A piece
    that the base's makers added (Gemma's runs of spaces) is found before all others, the longest first.
    """
    import sentencepiece
    from tokenizers import AddedToken, normalizers
    from transformers import LlamaTokenizer

    path = folder / "tokenizer.model"
    try:  # transformers makes a tokenizer of three tokens out of a file that is not a model
        sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError):
        raise UserError(f"{path}: not a SentencePiece model; fetch the base again") from None

    with tempfile.TemporaryDirectory() as alone:  # beside a tokenizer.json the added pieces would be lost
        for name in ("tokenizer.model", "tokenizer_config.json"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(alone) / name)
        tokenizer = LlamaTokenizer.from_pretrained(alone, add_bos_token=base.add_bos, add_eos_token=False)
    backend = tokenizer.backend_tokenizer
    prefix = [normalizers.Prepend(SPACE)] if base.add_space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    backend.pre_tokenizer = None
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if SPACE in token.content]
    backend.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in added])
    return tokenizer

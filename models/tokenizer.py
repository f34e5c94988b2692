"""A base's folder -> its tokenizer in transformers, cutting text as llama.cpp cuts it for whoever is served.

transformers has two ways to treat spaces, by the file that a folder brings; neither is llama.cpp's for every family.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from contract.base import Base

SPACE = "\u2581"  # what SentencePiece writes for a space


def load_tokenizer(folder: Path, base: Base) -> Any:
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
        tokenizer = LlamaTokenizer.from_pretrained(alone, add_bos_token=base.add_bos, add_eos_token=False)
    tokenizer.name_or_path = str(folder)
    backend = tokenizer.backend_tokenizer
    ahead = [normalizers.Prepend(SPACE)] if base.add_space_prefix else []
    backend.normalizer = normalizers.Sequence([*ahead, normalizers.Replace(" ", SPACE)])
    backend.pre_tokenizer = None
    own = [token.content for token in tokenizer.added_tokens_decoder.values() if SPACE in token.content]
    backend.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in own])
    tokenizer.pad_token = base.pad  # never the stop: that would mask the stop too
    return tokenizer

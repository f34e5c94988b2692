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

SPACE = "\u2581"  # what SentencePiece writes for a space


def load_tokenizer(folder: Path, base: Base) -> Any:
    """The tokenizer of the folder's SentencePiece model.  `add_special_tokens=True` adds its begin-of-sequence token.

    With `base.add_space_prefix` a space is put before the text and before what follows each control token.  A piece
    that the base's makers added (Gemma's runs of spaces) is found before all others, the longest first.
    """
    from tokenizers import AddedToken, normalizers
    from transformers import LlamaTokenizer

    with tempfile.TemporaryDirectory() as alone:  # beside a tokenizer.json the added pieces would be lost
        for name in ("tokenizer.model", "tokenizer_config.json"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, Path(alone) / name)
        tokenizer = LlamaTokenizer.from_pretrained(alone, add_bos_token=base.add_bos, add_eos_token=False)
    tokenizer.name_or_path = str(folder)
    backend = tokenizer.backend_tokenizer
    prefix = [normalizers.Prepend(SPACE)] if base.add_space_prefix else []
    backend.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    backend.pre_tokenizer = None
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if SPACE in token.content]
    backend.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in added])
    tokenizer.pad_token = base.pad  # never the stop: that would mask the stop too
    return tokenizer

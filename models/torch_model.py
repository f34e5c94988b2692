"""Base folder + adapter -> a backend in torch: the model as it was trained, before anything was merged or rounded.

In float32 on the CPU: the base's weights are widened and the LoRA is added beside them, not merged into them.
"""

from __future__ import annotations

import codecs
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.answers import Answer, Backend, Request, failed
from models.embedded import Served
from models.penalty import penalise, penalises
from models.tokenizer import load_tokenizer

PACKAGES = ("torch", "transformers", "peft", "sentencepiece")
Piece = Callable[[int], bytes]  # token id -> what it says


def missing_packages() -> str:
    """Why torch cannot answer here; "" when it can."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}; `make setup` installs all of it" if missing else ""


def load_model(base_folder: Path, adapter: Path | None) -> Any:
    """The base in float32, with the adapter's layers beside its own when there is one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()


@contextmanager
def open_torch(base_folder: Path, adapter: Path | None, served: Served) -> Iterator[Backend]:
    """Greedy answers under `served`: its prompt by the training tokenizer, its stops, its limits."""
    model = load_model(base_folder, adapter)
    tokenizer = load_tokenizer(base_folder, served.base)
    stop, said = tokenizer.convert_tokens_to_ids(served.base.stop), pieces(base_folder)

    def ask(request: Request) -> Answer:
        prompt = served.prompt(request.messages)
        ids = tokenizer(prompt, add_special_tokens=served.base.add_bos)["input_ids"]
        return _answer(model, ids, stop, said, {**served.options, **request.options})

    pins = {"arithmetic": "float32 on the CPU"} | {name: importlib.metadata.version(name) for name in PACKAGES}
    yield Backend("torch", (adapter or base_folder).name, ask, lambda: pins, options=served.options)


def _answer(model: Any, ids: list[int], stop: int, said: Piece, options: Mapping[str, Any]) -> Answer:
    started = time.monotonic()
    room = options["num_ctx"] - len(ids)
    if room < 1:
        return failed("server", f"the prompt has {len(ids)} tokens, the context {options['num_ctx']}")
    made, text, reason = 0, "", "length"
    spoken = b""
    for token in greedy(model, ids, options):
        made += 1
        spoken += said(token)
        text, stopped = until_stop(spoken, options["stop"])
        if token == stop or stopped:
            reason = "stop"
            break
        if made == min(options["num_predict"], room):
            break
    return Answer(text, reason, len(ids), made, seconds=time.monotonic() - started)


def until_stop(spoken: bytes, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop text, and whether there is one; a character cut off by the end is left out.

    >>> until_stop(b"a b</s> c", ["</s>"]), until_stop("fe\u00e9".encode()[:-1], [])
    (('a b', True), ('fe', False))
    """
    text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(spoken)
    found = [text.index(stop) for stop in stops if stop in text]
    return text[: min(found, default=len(text))], bool(found)


def greedy(model: Any, ids: list[int], options: Mapping[str, Any]) -> Iterator[int]:
    """The likeliest token, again and again, after the penalties of `options`.

    Not model.generate: that takes settings from the base's generation_config.json that no other step knows.
    """
    import torch

    past, new = None, ids
    while True:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([new]), past_key_values=past, use_cache=True)
        past, scores = out.past_key_values, out.logits[0, -1].numpy()
        token = int((penalise(scores, ids, options) if penalises(options) else scores).argmax())
        ids, new = [*ids, token], [token]
        yield token


def pieces(base_folder: Path) -> Piece:
    """What each token of the base's tokenizer says, as llama.cpp spells it: control tokens say nothing."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(base_folder / "tokenizer.model"))

    def said(token: int) -> bytes:
        if token >= len(model) or model.is_control(token) or model.is_unknown(token):
            return b""
        piece = model.id_to_piece(token)
        return bytes([int(piece[3:5], 16)]) if model.is_byte(token) else piece.replace("\u2581", " ").encode()

    return said

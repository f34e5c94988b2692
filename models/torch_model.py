"""Base folder + adapter -> the model in torch as it was trained: its answers and its logits.

float32 on the CPU; the LoRA is added beside the base's weights, not merged into them.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contract.base import Base
from models.answers import Answer, Backend, Request
from models.embedded import Encode, Piece, Served, answer
from models.nf4 import Nf4, four_bit_base
from models.penalty import penalise, penalises
from models.tensors import Tensor, open_base
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "peft", "accelerate", "sentencepiece")
LIBRARIES = 800_000_000  # bytes: torch, transformers and PEFT, imported
Row = tuple[list[int], int]  # token ids of prompt and answer, and how many of them are the prompt's
_EMBEDDING = "model.embed_tokens.weight"  # the output matrix too, if the base stores none
_OWN = ".base_layer."  # the base's own weights, which PEFT stores beside an output matrix's LoRA


def missing_packages() -> str:
    """Why torch cannot answer here; "" when it can."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}; `make setup` installs all of it" if missing else ""


def training_tokenizer(folder: Path, base: Base) -> Encode:
    """Text -> token ids as in training, the begin-of-sequence token included."""
    tokenizer = load_tokenizer(folder, base)
    return lambda text: list(tokenizer(text, add_special_tokens=base.add_bos)["input_ids"])


def load_model(base_folder: Path, adapter: Path | None, onto: str = "16bit", lend: bool = False) -> Any:
    """The base with the adapter's layers beside its own.  `onto` nf4: its values as in training on a 4-bit base.

    `lend`: each weight is read before its module runs and released after it.  A 7B then needs the memory of its largest
    matrix and of what passes between the layers, not 28 GB; every pass reads the whole base.
    """
    import torch
    from accelerate import init_empty_weights  # type: ignore[import-untyped]
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors = open_base(base_folder)
    if adapter and onto == "nf4":
        tensors, _ = four_bit_base(tensors, adapter)
    with init_empty_weights(include_buffers=False):
        config = AutoConfig.from_pretrained(base_folder)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    _give_weights(model, tensors, lend)
    if adapter:
        from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

        lora = PeftConfig.from_pretrained(str(adapter))
        lora.base_model_name_or_path = model.name_or_path  # its digest was compared; PEFT would warn of another path
        trained = {key: value for key, value in load_peft_weights(str(adapter), "cpu").items() if _OWN not in key}
        set_peft_model_state_dict(get_peft_model(model, lora), trained)  # changes `model` itself
    return model.eval()


def _give_weights(model: Any, tensors: Mapping[str, Tensor], lend: bool) -> None:
    import torch

    read = _read if lend else functools.cache(_read)  # cached: a tied matrix is in memory once

    def give(owner: torch.nn.Module, sources: Mapping[str, Tensor]) -> None:
        def take(weights: Mapping[str, torch.Tensor]) -> None:
            for key, weight in weights.items():
                owner._parameters[key] = torch.nn.Parameter(weight, requires_grad=False)

        def take_all(*_: object) -> None:
            take({key: read(tensor) for key, tensor in sources.items()})

        if not lend:
            take_all()
            return
        # A single zero viewed as a matrix: PEFT finds shape and device there, and it takes no memory.
        empty = {key: torch.zeros(()).expand(getattr(owner, key).shape) for key in sources}
        take(empty)
        owner.register_forward_pre_hook(take_all)
        owner.register_forward_hook(lambda *_: take(empty))

    for name, module in model.named_modules():
        tied = name == "lm_head" and "lm_head.weight" not in tensors
        parts = [key for key, _ in module.named_parameters(recurse=False)]
        if parts:
            give(module, {key: tensors[_EMBEDDING if tied else f"{name}.{key}"] for key in parts})


def _read(tensor: Tensor) -> torch.Tensor:
    """In float32, by safetensors' own reader, so that a fault of the export's reader would be found."""
    import torch
    from safetensors import safe_open

    if isinstance(tensor, Nf4):
        return torch.from_numpy(tensor.read())
    with safe_open(tensor.path, "pt") as file:
        values: torch.Tensor = file.get_tensor(tensor.name)
    return values.float()


def torch_logits(base_folder: Path, adapter: Path | None, onto: str, rows: Sequence[Row]) -> list[np.ndarray]:
    """Of each row (answer tokens, vocabulary): the prediction of every answer token from the tokens before it.

    All rows pass through the layers together, because the weights are lent.  Raises UserError, before anything is
    loaded, when memory is too small.
    """
    import torch

    needed, available = logits_memory(base_folder, rows), available_memory()
    if needed > available:
        raise UserError(
            f"needs {needed / 1e6:,.0f} MB of memory, {available / 1e6:,.0f} MB are available; close other programs"
        )
    model = load_model(base_folder, adapter, onto, lend=True)
    longest = max(len(ids) for ids, _ in rows)
    padded = [ids + [0] * (longest - len(ids)) for ids, _ in rows]  # after the end: no token looks ahead
    with torch.inference_mode():
        hidden = model.model(input_ids=torch.tensor(padded), use_cache=False).last_hidden_state
        kept = [hidden[n, start - 1 : len(ids) - 1] for n, (ids, start) in enumerate(rows)]
        logits = model.lm_head(torch.cat(kept)).split([len(part) for part in kept])
    return [part.numpy() for part in logits]


def logits_memory(folder: Path, rows: Sequence[Row]) -> int:
    """Bytes that `torch_logits` takes at most: libraries, the largest matrix, what passes a layer, twice the logits.

    Measured on 8 layers of the 7B's shape: 1.5 GB where this gives 1.8 (8 rows), 3.7 where it gives 4.2 (32 rows).
    """
    tensors = open_base(folder)
    largest = max(math.prod(tensor.shape) for tensor in tensors.values())
    widest = sum(tensors[f"model.layers.0.{part}_proj.weight"].shape[0] for part in ("mlp.gate", "mlp.up", "mlp.down"))
    passing = len(rows) * max(len(ids) for ids, _ in rows) * 3 * widest // 2
    vocabulary = tensors[_EMBEDDING].shape[0]
    return LIBRARIES + 4 * (largest + passing + 2 * vocabulary * sum(len(ids) - start for ids, start in rows))


def answers_memory(folder: Path) -> int:
    """Bytes that `open_torch` takes at most: libraries and the base in float32, a tenth more for the cache."""
    return LIBRARIES + 44 * sum(math.prod(tensor.shape) for tensor in open_base(folder).values()) // 10


def available_memory() -> int:
    """Bytes that the system can give without swapping."""
    import psutil  # type: ignore[import-untyped]  # comes with accelerate

    return int(psutil.virtual_memory().available)


@contextmanager
def open_torch(base_folder: Path, adapter: Path | None, onto: str, served: Served) -> Iterator[Backend]:
    """Greedy answers under `served`: its prompt by the training tokenizer, its stops, its limits."""
    model = load_model(base_folder, adapter, onto)
    encode, piece = training_tokenizer(base_folder, served.base), pieces(base_folder)
    end, generate = encode(served.base.stop)[-1], functools.partial(greedy, model)

    def ask(request: Request) -> Answer:
        return answer(served, request, encode, generate, piece, end)

    pins = {"arithmetic": "float32 on the CPU"} | {name: importlib.metadata.version(name) for name in PACKAGES}
    yield Backend("torch", (adapter or base_folder).name, ask, lambda: pins, options=served.options)


def greedy(model: Any, ids: list[int], options: Mapping[str, Any]) -> Iterator[int]:
    """The likeliest token, again and again, after the penalties of `options`.

    Not model.generate: that takes settings from the base's generation_config.json, which no other step reads.
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
    """The text of each token of the base's tokenizer, as llama.cpp gives it: control tokens have none."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(base_folder / "tokenizer.model"))

    def piece(token: int) -> bytes:
        if token >= len(model) or model.is_control(token) or model.is_unknown(token):
            return b""
        spelled = model.id_to_piece(token)
        return bytes([int(spelled[3:5], 16)]) if model.is_byte(token) else spelled.replace("\u2581", " ").encode()

    return piece

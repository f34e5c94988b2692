"""A live Ollama + a conversation -> every Difference from the training side.

On the training side the text is Base.prompt's, the token ids are the base's own tokenizer's, and the registration is
the model folder's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.base import Base, Message
from models.modelfile import load_modelfile, shown_parameters
from models.ollama_server import NoAnswerError, Server, weights_digest
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError

REGISTRATION = "registration"
SMALL = 50_000_000  # weights: a smaller model is faster on one thread than on several that wait for each other (10 ms against 60)
SPARE = 4  # tokens of the context that stay free: the stop after the prompt and one answer token
PROBED = ("[INST]", "[/INST]", "<s>", "</s>")  # texts that a user may write to break out of the turn
Encode = Callable[[str], list[int]]  # text -> the training side's token ids, without the begin-of-sequence token


@dataclass(frozen=True)
class Difference:
    where: str  # a conversation's name, or REGISTRATION
    what: str  # text, ids, prompt tokens, an answer, weights, template, system, parameter ..., gguf ...
    trained: Any
    served: Any


@dataclass(frozen=True)
class Served:
    """A registered model, asked for one token each time; a prompt is never cut to fit."""

    server: Server
    model: str
    num_thread: int | None = None

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        threads = {"num_thread": self.num_thread} if self.num_thread else {}
        options = {"num_predict": 1, "temperature": 0} | threads
        # `shift` and the options are the same in every call, or Ollama would reload the model.
        same = {"model": self.model, "stream": False, "truncate": False, "shift": False, "options": options}
        return self.server.call(path, same | body)

    def rendered(self, messages: list[Message]) -> str:
        """The text that Ollama makes of a conversation, without generating."""
        try:
            data = self._call("/api/chat", {"messages": messages, "_debug_render_only": True})
            return str(data["_debug_info"]["rendered_template"])
        except (KeyError, TypeError):
            raise UserError(
                f"Ollama at {self.server.url} does not show its prompts; parity was tested with 0.34.2"
            ) from None

    def tokenized(self, text: str, stop: str, stop_ids: list[int]) -> list[int]:
        """The token ids of a rendered text by the served GGUF, without the begin-of-sequence token.

        `context` holds the ids of prompt + answer, tokenized as one text.  A stop token between the two separates them: no
        token spans it, and all ids after the last one belong to the answer.
        """
        data = self._call("/api/generate", {"prompt": text + stop, "template": "{{ .Prompt }}"})
        context = list(data.get("context") or [])
        ends = [i for i in range(len(context)) if context[i : i + len(stop_ids)] == stop_ids]
        return context[: ends[-1]] if ends else context

    def counted(self, messages: list[Message]) -> int:
        """The number of tokens of the whole chat prompt, with the begin-of-sequence token."""
        return int(self._call("/api/chat", {"messages": messages})["prompt_eval_count"])


def open_served(server: Server, model: str, shown: dict[str, Any]) -> Served:
    weights = (shown.get("model_info") or {}).get("general.parameter_count") or SMALL
    return Served(server, model, 1 if weights < SMALL else None)


def training_tokenizer(folder: Path, base: Base) -> Encode:
    """The tokenizer used in training: the base folder's."""
    try:
        tokenizer = load_tokenizer(folder, base)
    except ImportError:
        raise UserError(
            "parity needs the packages transformers and sentencepiece; `make setup` installs them"
        ) from None
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


def compare_registration(
    folder: Path, base: Base, system: str, shown: dict[str, Any], outputs: dict[str, str]
) -> list[Difference]:
    """Ollama's registration against the model folder, and the folder's Modelfile against the contract.

    Each of the folder's types is registered as its own tag, so the weights of any of them are right.
    """
    modelfile = load_modelfile(folder / "Modelfile")
    weights, held = [digest for name, digest in outputs.items() if name.endswith(".gguf")], weights_digest(shown)
    pairs: list[tuple[str, Any, Any]] = [
        ("weights", held if held in weights else ", ".join(weights), held),
        ("template", base.ollama_template(), shown.get("template", "")),
        ("template in the Modelfile", base.ollama_template(), modelfile.template),
        ("system", system, shown.get("system", "")),
        ("system in the Modelfile", system, modelfile.system),
        *_tokenizer_pairs(base, shown.get("model_info") or {}),
    ]
    served = shown_parameters(shown.get("parameters", ""))
    for name in sorted(modelfile.parameters.keys() | served.keys()):
        pairs.append((f"parameter {name}", modelfile.parameters.get(name), served.get(name)))
    differences = [Difference(REGISTRATION, what, a, b) for what, a, b in pairs if a != b]
    if base.stop not in served.get("stop", ()):
        differences.append(Difference(REGISTRATION, "stop", base.stop, served.get("stop", ())))
    return differences


def _tokenizer_pairs(base: Base, info: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The GGUF's tokenizer by its metadata.

    llama.cpp reads a missing flag of a SentencePiece model as true.  Such a model merges by scores, a byte-level BPE by
    merges.
    """
    order = "scores" if base.tokenizer == "sentencepiece" else "merges"
    return [
        ("gguf add_bos_token", base.add_bos, info.get("tokenizer.ggml.add_bos_token", True)),
        ("gguf add_space_prefix", base.add_space_prefix, info.get("tokenizer.ggml.add_space_prefix", True)),
        (f"gguf {order}", True, f"tokenizer.ggml.{order}" in info),
    ]


def trained_prompt(base: Base, system: str, messages: list[Message]) -> str:
    """The training side's prompt.  As in Ollama, SYSTEM comes first unless the conversation begins with a system text."""
    own = messages[0]["role"] == "system"
    return base.prompt(messages if own else [{"role": "system", "content": system}, *messages])


def compare_prompt(
    served: Served, base: Base, encode: Encode, system: str, name: str, messages: list[Message]
) -> list[Difference]:
    """One conversation's text, token ids and number of prompt tokens, trained against served."""
    text = trained_prompt(base, system, messages)
    ids = encode(text)
    try:
        served_text = served.rendered(messages)
        served_ids = served.tokenized(served_text, base.stop, encode(base.stop))
        served_count = served.counted(messages)
    except NoAnswerError as error:
        if error.kind == "transport":
            raise UserError(
                f"Ollama at {served.server.url} stopped answering at '{name}': {error}; run again"
            ) from None
        return [Difference(name, "an answer", "a prompt", str(error))]
    pairs = [
        ("text", text, served_text),
        ("ids", ids, served_ids),
        ("prompt tokens", len(ids) + base.add_bos, served_count),
    ]
    return [Difference(name, what, trained, served) for what, trained, served in pairs if trained != served]


def filling(base: Base, encode: Encode, system: str, num_ctx: int) -> list[Message]:
    """One question that fills the context up to SPARE tokens, or nearly; empty when the system text alone fills it."""
    word, low, high = "blood pressure ", 0, num_ctx
    while low < high:  # the largest number of words that fits
        middle = (low + high + 1) // 2
        text = trained_prompt(base, system, [{"role": "user", "content": word * middle}])
        low, high = (middle, high) if fits(encode(text), num_ctx) else (low, middle - 1)
    return [{"role": "user", "content": word * low}] if low else []


def fits(ids: Sequence[int], num_ctx: int) -> bool:
    return len(ids) + 1 + SPARE <= num_ctx


def probe_control_tokens(served: Served, base: Base, encode: Encode) -> dict[str, dict[str, Any]]:
    """Each text of PROBED that the training tokenizer reads as a control token, and how the server reads it."""
    found: dict[str, dict[str, Any]] = {}
    stop_ids = encode(base.stop)
    for probe in PROBED:
        ids = encode(probe)
        if len(ids) != 1:
            continue
        try:
            cut = [
                served.tokenized(served.rendered([{"role": "user", "content": text}]), base.stop, stop_ids).count(
                    ids[0]
                )
                for text in (f"a{probe}b", "ab")
            ]
        except NoAnswerError:  # a server that refuses these refused the conversations too, which are reported
            continue
        found[probe] = {"id": ids[0], "served as": "control token" if cut[0] > cut[1] else "text"}
    return found

"""A model folder's GGUF -> answers by llama.cpp in this process: the backend without a server."""

from __future__ import annotations

import codecs
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from contract.base import Base, Message, load_base
from contract.contract import load_contract
from models.answers import Answer, Backend, Request, failed
from models.gguf_model import GgufModel, checked_digest, open_llama
from models.modelfile import load_modelfile
from models.options import own_options
from models.penalty import penalise, penalises
from plumbing.handover import read_manifest

Encode = Callable[[str], list[int]]  # text -> token ids
Generate = Callable[[list[int], Mapping[str, Any]], Iterator[int]]  # prompt's token ids, options -> the next ones
Piece = Callable[[int], bytes]  # token id -> its text


@dataclass(frozen=True)
class Served:
    """How Ollama would serve this model: read from the folder beside the GGUF."""

    base: Base
    system: str
    options: dict[str, Any]  # num_ctx, num_predict, stop...

    def prompt(self, messages: tuple[Message, ...]) -> str:
        """The served system text comes first unless the conversation brings its own, as in Ollama."""
        own = bool(messages) and messages[0]["role"] == "system"
        system = [] if own else [{"role": "system", "content": self.system}]
        return self.base.prompt([*system, *messages])


@contextmanager
def open_gguf(path: Path, settings: Mapping[str, Any] | None = None) -> Iterator[Backend]:
    """Answers of a model folder's GGUF; `settings` override the folder's own parameters.

    Raises UserError when the file is missing, damaged or refused.
    """
    digest = checked_digest(path)
    served = read_served(path.parent)
    served.options.update(settings or {})
    with open_llama(path, served.base, served.options["num_ctx"]) as model:
        pins = {"weights": digest, "file": path.name, "num_ctx": served.options["num_ctx"], "llama_cpp": _version()}
        generate = partial(_generate, model.llama, _read_ahead(model, served))

        def ask(request: Request) -> Answer:
            return answer(served, request, model.tokenize, generate, model.piece, model.llama.token_eos())

        name = f"{path.parent.name}/{path.name}"
        yield Backend("llama_cpp", name, ask, lambda: pins, _identity(digest, served), served.options)


def first_gguf(folder: Path) -> Path:
    """The GGUF of a model folder's first type: the one that is registered under the name itself, without a tag."""
    return folder / f"model.{read_manifest(folder, 'model')['settings']['type']}.gguf"


def read_served(folder: Path) -> Served:
    """The model folder's base, system prompt and parameters.  Raises UserError when a file is missing or broken."""
    base = load_base(folder / "base.toml")
    parameters = load_modelfile(folder / "Modelfile").parameters
    system = load_contract(folder / "task.toml").system_prompt()
    return Served(base, system, own_options({"stop": (base.stop,), **parameters}, base.context_length))


def _identity(weights: str, served: Served) -> str:
    """Names the weights, what turns a conversation into a prompt, and the version that runs them."""
    prompt = hashlib.sha256(f"{served.base!r} {served.system}".encode()).hexdigest()
    return f"llama_cpp {_version()} {weights} {prompt}"


def _version() -> str:
    import llama_cpp

    return str(llama_cpp.__version__)


def _read_ahead(model: GgufModel, served: Served) -> int:
    """Evaluate the beginning that all prompts share (the system text) and return its number of tokens.

    llama.cpp would keep all that two successive requests share.  A kept prefix of another length changes the last
    digits, and with them some answers: an answer would then depend on the request before it.
    """
    one, two = (model.tokenize(served.prompt(({"role": "user", "content": text},))) for text in "ab")
    shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    model.llama.eval(one[:shared])
    return shared


def answer(served: Served, request: Request, encode: Encode, generate: Generate, piece: Piece, end: int) -> Answer:
    """The answer to one request: by its own options, else by those that are served; `end` is the stop token."""
    started, ids = time.monotonic(), encode(served.prompt(request.messages))
    options = {**served.options, **request.options}
    room = options["num_ctx"] - len(ids)
    if room < 1:
        return failed("server", f"the prompt has {len(ids)} tokens, the context {options['num_ctx']}")
    limit = min(options["num_predict"], room)
    text, reason, made = until_stop(generate(ids, options), piece, end, options["stop"], limit)
    return Answer(text, reason, len(ids), made, seconds=time.monotonic() - started)


def until_stop(tokens: Iterable[int], piece: Piece, end: int, stops: Sequence[str], limit: int) -> tuple[str, str, int]:
    r"""The text before the token `end` or a stop text, why it ended, and how many tokens it took, at most `limit`.

    As Ollama does: bytes that are not UTF-8 become U+FFFD, and a character cut off by the limit is left out.
    Llama.create_completion would exceed the limit and drop such bytes.

    >>> until_stop([0, 1, 2], [b"a b", b"</s>", b"c"].__getitem__, 9, ["</s>"], 3)
    ('a b', 'stop', 2)
    >>> until_stop([0, 1], [b"fe", b"\xc3"].__getitem__, 9, [], 2)
    ('fe', 'length', 2)
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = whole = ""
    made = 0
    for token in tokens:
        made += 1
        if token == end:
            return whole, "stop", made
        text += decoder.decode(piece(token))
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return text[: min(found)], "stop", made
        if not decoder.getstate()[0]:  # the last character is complete
            whole = text
        if made == limit:
            break
    return whole, "length", made


def _generate(llama: Any, shared: int, ids: list[int], options: Mapping[str, Any]) -> Iterator[int]:
    llama.n_tokens = min(llama.n_tokens, shared)  # keep only the shared beginning
    llama.set_seed(options["seed"])
    tokens: Iterator[int] = llama.generate(
        ids, temp=options["temperature"], repeat_penalty=1.0,
        logits_processor=_penalty(options),
        **{name: options[name] for name in ("top_k", "top_p", "min_p")},
    )  # fmt: skip
    return tokens


def _penalty(options: Mapping[str, Any]) -> Any:
    """The penalties as a logits processor; llama-cpp-python's own ones count only the tokens of the answer."""
    if not penalises(options):
        return None
    from llama_cpp import LogitsProcessorList

    return LogitsProcessorList([lambda tokens, scores: penalise(scores, tokens, options)])

"""A model folder's GGUF, answered inside this process by llama.cpp: the backend that needs no server."""

from __future__ import annotations

import codecs
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.base import Base, Message, load_base
from contract.contract import load_contract
from models.answers import Answer, Backend, Request, failed
from models.modelfile import load_modelfile
from models.options import own_options
from models.penalty import penalise, penalises
from plumbing.errors import UserError
from plumbing.handover import Manifest, read_manifest, sha256


@dataclass(frozen=True)
class Served:
    """What Ollama would be told of this model: read from the folder beside the GGUF."""

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
    """Answers of a model folder's GGUF; `settings` stand before the folder's own parameters.

    Raises UserError when it is missing, damaged or refused.
    """
    folder = path.parent
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python -m quantize ADAPTER_DIR --out DIR` writes model.<type>.gguf")
    manifest = read_manifest(folder, "model")
    digest = _checked(path, manifest)
    served = read_served(folder)
    served.options.update(settings or {})
    llama = _load(path, served)
    try:
        pins = {"weights": digest, "file": path.name, "num_ctx": served.options["num_ctx"], "llama_cpp": _version()}
        name, shared = f"{folder.name}/{path.name}", _read_ahead(llama, served)
        yield Backend(
            "llama_cpp", name, lambda request: _answer(llama, served, shared, request), lambda: pins,
            _identity(digest, served), served.options,
        )  # fmt: skip
    finally:
        llama.close()


def first_gguf(folder: Path) -> Path:
    """The GGUF of a model folder's first type: the one that is registered by the name itself, not as its tag."""
    return folder / f"model.{read_manifest(folder, 'model')['settings']['type']}.gguf"


def read_served(folder: Path) -> Served:
    """The model folder's base, system prompt and parameters.  Raises UserError when a file is missing or broken."""
    base = load_base(folder / "base.toml")
    parameters = load_modelfile(folder / "Modelfile").parameters
    system = load_contract(folder / "task.toml").system_prompt()
    return Served(base, system, own_options({"stop": (base.stop,)} | parameters, base.context_length))


def _identity(weights: str, served: Served) -> str:
    """Of the weights, what turns a conversation into their prompt, and what runs them."""
    prompt = hashlib.sha256(f"{served.base!r} {served.system}".encode()).hexdigest()
    return f"llama_cpp {_version()} {weights} {prompt}"


def _checked(path: Path, manifest: Manifest) -> str:
    """The file's sha256, proved to be the manifest's: llama.cpp itself would load damaged weights and answer noise."""
    digest = sha256(path)
    if manifest["outputs"].get(path.name) != digest:
        raise UserError(
            f"{path}: not the file that was exported (cut short or changed); run `python -m quantize` again"
        )
    return digest


def _load(path: Path, served: Served) -> Any:
    try:
        from llama_cpp import Llama
    except ImportError:
        raise UserError("--gguf needs the package llama-cpp-python; `make setup` installs it") from None
    try:  # flash attention as in Ollama, or the last digits differ and with them some answers
        return Llama(
            str(path), n_ctx=served.options["num_ctx"], n_threads=_threads(), seed=0, flash_attn=True, verbose=False
        )
    except ValueError as error:
        raise UserError(f"{path}: llama.cpp cannot load it ({error}); run `python -m quantize` again") from None


def _threads() -> int:
    """OMP_NUM_THREADS where it is set: on shared processors fewer threads are faster."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, (os.cpu_count() or 2) // 2)


def _version() -> str:
    import llama_cpp

    return str(llama_cpp.__version__)


def _read_ahead(llama: Any, served: Served) -> int:
    """Evaluate what every prompt begins with (the system text) and return how many tokens that is.

    llama.cpp would keep whatever two requests in a row share.  A prefix of another length changes the last digits, and
    with them some answers: then an answer would hang on the request before it.
    """
    one, two = (_tokens(llama, served, ({"role": "user", "content": text},)) for text in "ab")
    shared = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    llama.eval(one[:shared])
    return shared


def _tokens(llama: Any, served: Served, messages: tuple[Message, ...]) -> list[int]:
    """Special tokens are parsed; the begin-of-sequence token is put first once, by us."""
    ids = llama.tokenize(served.prompt(messages).encode("utf-8"), add_bos=False, special=True)
    return [llama.token_bos()] * served.base.add_bos + list(ids)


def _answer(llama: Any, served: Served, shared: int, request: Request) -> Answer:
    started = time.monotonic()
    ids = _tokens(llama, served, request.messages)
    options = {**served.options, **request.options}
    room = options["num_ctx"] - len(ids)
    if room < 1:
        return failed("server", f"the prompt has {len(ids)} tokens, the context {options['num_ctx']}")
    llama.n_tokens = min(llama.n_tokens, shared)  # keep just the shared beginning of the request before
    llama.set_seed(options["seed"])
    tokens = llama.generate(
        ids, temp=options["temperature"], repeat_penalty=1.0,
        logits_processor=_penalty(options),
        **{name: options[name] for name in ("top_k", "top_p", "min_p")},
    )  # fmt: skip
    text, reason, made = _until_stop(llama, tokens, options["stop"], min(options["num_predict"], room))
    return Answer(text, reason, len(ids), made, seconds=time.monotonic() - started)


def _penalty(options: Mapping[str, Any]) -> Any:
    """The penalties as a logits processor; llama-cpp-python's own count the answer's tokens alone."""
    if not penalises(options):
        return None
    from llama_cpp import LogitsProcessorList

    return LogitsProcessorList([lambda tokens, scores: penalise(scores, tokens, options)])


def _until_stop(llama: Any, tokens: Iterator[int], stops: Sequence[str], limit: int) -> tuple[str, str, int]:
    """The text up to the stop token or a stop text, why it ended, and how many tokens it took.

    Not Llama.create_completion, which runs over the limit and drops bytes where an answer is no UTF-8; this does as
    Ollama does: what no character is becomes U+FFFD, and a character cut off by the answer's end is left out.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = whole = ""
    made = 0
    for token in tokens:
        made += 1
        if token == llama.token_eos():
            return whole, "stop", made
        text += decoder.decode(llama.detokenize([token]))
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return text[: min(found)], "stop", made
        if not decoder.getstate()[0]:  # no character has only begun
            whole = text
        if made == limit:
            break
    return whole, "length", made

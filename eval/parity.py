"""Model folder + live Ollama -> parity.json: is what is served what was trained?  `python -m eval.parity MODEL_DIR`

For every fixture conversation the server's prompt must be the training side's: the same text (Base.prompt), the same
token ids (the base's own tokenizer), the same number of tokens.  The registration itself must be the model folder's:
weights, TEMPLATE, SYSTEM and every parameter.  Exit 2 on any difference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract.base import Base, Message, load_base
from contract.base_folder import find_base_folder
from contract.contract import load_contract
from contract.errors import UserError, run
from contract.handover import Manifest, new_file, read_manifest
from contract.ollama_address import server_url
from eval.conversations import CONVERSATIONS
from eval.modelfile import load_modelfile, shown_parameters
from eval.server import NoAnswerError, Server, weights_digest

MODEL = "medical-mistral"
SHOWN = 5  # differences printed; parity.json holds all
Conversations = dict[str, list[Message]]
Encode = Callable[[str], list[int]]  # text -> the training side's token ids, without the begin-of-sequence token


@dataclass(frozen=True)
class Difference:
    where: str  # a conversation's name, or "registration"
    what: str  # text, ids, prompt tokens, weights, template, system, parameter ...
    trained: str
    served: str


def main() -> int:
    args = _parser().parse_args()
    folder, server = Path(args.folder), Server(server_url(args.host))
    version = server.check()
    differences = compare(server, args.model, folder, args.base)
    result = {
        "equal": not differences, "model": args.model, "digest": server.digest(args.model), "ollama": version,
        "conversations": len(CONVERSATIONS), "differences": [asdict(difference) for difference in differences],
    }  # fmt: skip
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    out = Path(args.out) if args.out else folder.parent / "parity.json"
    with new_file(out) as file:
        file.write_text(text, encoding="utf-8")
    print(text if args.json else describe(args.model, differences, out))
    return 2 if differences else 0


def compare(
    server: Server,
    model: str,
    folder: Path,
    base_folder: str | None = None,
    conversations: Conversations = CONVERSATIONS,
) -> list[Difference]:
    """Everything in which the registered model is not the folder's, or a served prompt not the trained one.

    Raises UserError when a folder is not what it should be, or the server or the model is not there.
    """
    manifest = read_manifest(folder, "model")
    base = load_base(folder / "base.toml")
    system = load_contract(folder / "task.toml").system_prompt()
    shown = server.show(model)
    encode = training_tokenizer(_base_folder(base_folder, manifest, base))
    differences = compare_registration(folder, base, system, shown, manifest["outputs"])
    for name, messages in _watched(conversations):
        differences += compare_prompt(server, model, base, encode, system, name, messages)
    return differences


def _base_folder(named: str | None, manifest: Manifest, base: Base) -> Path:
    """Where the base's tokenizer lies: as named, else where the model was exported, else where its spec says."""
    exported = manifest["settings"].get("base_folder")
    return find_base_folder(base, named or (exported if exported and Path(exported).is_dir() else None))


def training_tokenizer(folder: Path) -> Encode:
    """The tokenizer that training uses: transformers' LlamaTokenizer of the base folder."""
    try:
        from transformers import LlamaTokenizer
    except ImportError:
        raise UserError(
            "parity needs the packages transformers and sentencepiece; `make setup` installs them"
        ) from None
    tokenizer = LlamaTokenizer.from_pretrained(folder, legacy=False)
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


def compare_registration(
    folder: Path, base: Base, system: str, shown: dict[str, Any], outputs: dict[str, str]
) -> list[Difference]:
    """What Ollama holds against the model folder, and the folder's Modelfile against the contract."""
    modelfile = load_modelfile(folder / "Modelfile")
    pairs: list[tuple[str, Any, Any]] = [
        (
            "weights",
            next((digest for name, digest in outputs.items() if name.endswith(".gguf")), ""),
            weights_digest(shown),
        ),
        ("template", base.ollama_template(), shown.get("template", "")),
        ("template in the Modelfile", base.ollama_template(), modelfile.template),
        ("system", system, shown.get("system", "")),
        ("system in the Modelfile", system, modelfile.system),
    ]
    served = shown_parameters(shown.get("parameters", ""))
    for name in sorted(modelfile.parameters.keys() | served.keys()):
        pairs.append((f"parameter {name}", modelfile.parameters.get(name), served.get(name)))
    differences = [Difference("registration", what, repr(a), repr(b)) for what, a, b in pairs if a != b]
    if base.stop not in served.get("stop", ()):
        differences.append(Difference("registration", "stop", repr(base.stop), repr(served.get("stop", ()))))
    return differences


def compare_prompt(
    server: Server, model: str, base: Base, encode: Encode, system: str, name: str, messages: list[Message]
) -> list[Difference]:
    """One conversation's text, token ids and number of prompt tokens, trained against served.

    Unless the conversation begins with a system message, Ollama puts the model's own SYSTEM first.
    """
    own = messages[0]["role"] == "system"
    text = base.prompt(messages if own else [{"role": "system", "content": system}, *messages])
    ids = encode(text)
    try:
        served_text = rendered(server, model, messages)
        served_ids = tokenized(server, model, served_text, base.stop, encode(base.stop))
        served_count = counted(server, model, messages)
    except NoAnswerError as error:
        if error.kind == "transport":
            raise UserError(f"Ollama at {server.url} stopped answering at '{name}': {error}; run again") from None
        return [Difference(name, "an answer", "a prompt", str(error))]
    pairs = [
        ("text", text, served_text),
        ("ids", ids, served_ids),
        ("prompt tokens", len(ids) + base.add_bos, served_count),
    ]
    return [Difference(name, what, repr(trained), repr(served)) for what, trained, served in pairs if trained != served]


# One token, and never a prompt cut to fit.  `shift` is the same in every call, or Ollama would reload the model.
_CALL = {"stream": False, "truncate": False, "shift": False, "options": {"num_predict": 1, "temperature": 0}}


def rendered(server: Server, model: str, messages: list[Message]) -> str:
    """The text that Ollama makes of a conversation, without generating."""
    body = {"model": model, "messages": messages, "_debug_render_only": True} | _CALL
    try:
        return str(server.call("/api/chat", body)["_debug_info"]["rendered_template"])
    except (KeyError, TypeError):
        raise UserError(f"Ollama at {server.url} does not show its prompts; parity was tried with 0.34.2") from None


def tokenized(server: Server, model: str, text: str, stop: str, stop_ids: list[int]) -> list[int]:
    """The token ids of a rendered text as the served GGUF cuts it, without the begin-of-sequence token.

    `context` holds the ids of prompt + answer, cut as one text.  A stop token between the two parts them: no token
    reaches over it, and whatever comes behind the last one is the answer's.
    """
    body = {"model": model, "prompt": text + stop, "template": "{{ .Prompt }}"} | _CALL
    context = list(server.call("/api/generate", body).get("context") or [])
    ends = [i for i in range(len(context)) if context[i : i + len(stop_ids)] == stop_ids]
    return context[: ends[-1]] if ends else context


def counted(server: Server, model: str, messages: list[Message]) -> int:
    """How many tokens the whole chat prompt really had, the begin-of-sequence token included."""
    return int(server.call("/api/chat", {"model": model, "messages": messages} | _CALL)["prompt_eval_count"])


def describe(model: str, differences: Sequence[Difference], out: Path) -> str:
    """The result in a line, then the first differences with both strings."""
    if not differences:
        return (
            f"{model}: served as trained: {len(CONVERSATIONS)} conversations equal in text, token ids and count ({out})"
        )
    where = {difference.where for difference in differences}
    lines = [f"{model}: NOT served as trained: {len(differences)} differences in {len(where)} places ({out})"]
    for difference in differences[:SHOWN]:
        lines.append(
            f"{difference.where}: {difference.what}\n  trained {difference.trained}\n  served  {difference.served}"
        )
    return "\n".join(lines)


def _watched(conversations: Conversations) -> Iterator[tuple[str, list[Message]]]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    items = list(conversations.items())
    yield from track(items, "comparing", console=console) if sys.stderr.isatty() else items


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.parity", description="Prove that the served prompt is the trained one."
    )
    parser.add_argument("folder", metavar="MODEL_DIR", help="the model folder that was registered")
    parser.add_argument("--model", default=MODEL, help=f"its name in Ollama (default {MODEL})")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    parser.add_argument("--base", metavar="DIR", help="the base's folder, whose tokenizer was trained with")
    parser.add_argument("--out", help="where to write the result (default: parity.json beside MODEL_DIR)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


if __name__ == "__main__":
    run(main)

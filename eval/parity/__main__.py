"""Model folder + live Ollama -> parity.json: is the model served as it was trained?

`python -m eval.parity MODEL_DIR` compares, for every conversation of the corpus, the server's prompt with the training
side's: the text (Base.prompt), the token ids (the base's own tokenizer) and their number.  It also compares the
registration with the model folder: weights, TEMPLATE, SYSTEM and every parameter.  Exit 2 on any difference; its likely
cause is printed.

`python -m eval.parity --modelfile FILE` checks any Modelfile for faults instead, without server or dataset.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract.base import Base, Message, load_base
from contract.contract import load_contract
from contract.example import read_examples
from eval.parity.causes import find_causes
from eval.parity.checks import (
    Difference,
    Encode,
    compare_prompt,
    compare_registration,
    filling,
    fits,
    open_served,
    probe_control_tokens,
    trained_prompt,
    training_tokenizer,
)
from eval.parity.modelfile_lint import lint
from models.base_folder import find_base_folder
from models.conversations import CONVERSATIONS, turns
from models.modelfile import load_modelfile
from models.ollama_address import server_url
from models.ollama_server import Server, weights_digest
from plumbing.errors import UserError, run
from plumbing.handover import Manifest, new_file, read_manifest

MODEL = "medical-mistral"
SHOWN = 5  # differences printed
KEPT = 20  # differences in parity.json: a wrong TEMPLATE causes hundreds of the same kind
REQUESTS = 24  # of --data
WIDE = 200  # printed characters of a differing text or list of token ids
Conversations = Mapping[str, list[Message]]


@dataclass(frozen=True)
class Parity:
    conversations: int
    left_out: list[str]  # longer than the model folder's num_ctx
    differences: list[Difference]
    causes: list[str]
    control_tokens: dict[str, dict[str, Any]]  # text -> id, and how the server reads it in a user's words
    gguf: str  # sha256 of the served weights
    seconds: float


def main() -> int:
    args = _parser().parse_args()
    if args.modelfile:
        return print_lint(Path(args.modelfile), args.json)
    if not args.folder:
        raise UserError(
            "no MODEL_DIR; name the model folder that was registered, or check a Modelfile with --modelfile FILE"
        )
    folder, server = Path(args.folder), Server(server_url(args.host))
    version = server.check()
    found = compare(server, args.model, folder, args.base, CONVERSATIONS | requests(args.data, folder))
    text = json.dumps(verdict(found, args.model, server.digest(args.model), version), indent=2, ensure_ascii=False)
    out = Path(args.out) if args.out else folder.parent / "parity.json"
    with new_file(out) as file:
        file.write_text(text + "\n", encoding="utf-8")
    print(text if args.json else describe(args.model, found, out))
    return 2 if found.differences else 0


def print_lint(path: Path, as_json: bool) -> int:
    findings = lint(path)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print("\n".join(f"{path}: {finding}" for finding in findings) or f"{path}: nothing found")
    return 2 if findings else 0


def requests(data: str | None, folder: Path) -> dict[str, list[Message]]:
    """REQUESTS requests of a dataset's test split, evenly spaced, each a conversation of one turn."""
    if not data:
        return {}
    examples = read_examples(Path(data) / "test.jsonl", load_contract(folder / "task.toml"))
    step = max(1, len(examples) // REQUESTS)
    return {f"test split: {e.id}": turns("u", e.request) for e in examples[::step][:REQUESTS]}


def compare(
    server: Server,
    model: str,
    folder: Path,
    base_folder: str | None = None,
    conversations: Conversations = CONVERSATIONS,
) -> Parity:
    """Every difference between the registered model and the folder, and between served and trained prompts.

    Raises UserError when a folder is not valid, or when the server or the model cannot be found.
    """
    started = time.monotonic()
    manifest = read_manifest(folder, "model")
    base = load_base(folder / "base.toml")
    system = load_contract(folder / "task.toml").system_prompt()
    shown = server.show(model)
    encode = training_tokenizer(_base_folder(base_folder, manifest, base), base)
    differences = compare_registration(folder, base, system, shown, manifest["outputs"])
    chosen, left_out = _chosen(conversations, folder, base, encode, system)
    served = open_served(server, model, shown)
    for name, messages in _watched(chosen):
        differences += compare_prompt(served, base, encode, system, name, messages)
    return Parity(
        conversations=len(chosen),
        left_out=left_out,
        differences=differences,
        causes=find_causes(base, shown, differences),
        control_tokens=probe_control_tokens(served, base, encode),
        gguf=weights_digest(shown),
        seconds=round(time.monotonic() - started, 1),
    )


def _base_folder(named: str | None, manifest: Manifest, base: Base) -> Path:
    """The folder of the base's tokenizer: as named, else the one used for the export, else the one of its spec."""
    exported = manifest["settings"].get("base_folder")
    return find_base_folder(base, named or (exported if exported and Path(exported).is_dir() else None))


def _chosen(
    conversations: Conversations, folder: Path, base: Base, encode: Encode, system: str
) -> tuple[dict[str, list[Message]], list[str]]:
    """The conversations that fit the folder's num_ctx, one that fills it, and the names of those that are too long."""
    contexts = load_modelfile(folder / "Modelfile").parameters.get("num_ctx", ())
    if not contexts or not isinstance(contexts[-1], float):
        return dict(conversations), []
    num_ctx = int(contexts[-1])
    long = [
        n for n, messages in conversations.items() if not fits(encode(trained_prompt(base, system, messages)), num_ctx)
    ]
    chosen = {name: messages for name, messages in conversations.items() if name not in long}
    full = filling(base, encode, system, num_ctx)
    return chosen | ({f"fills num_ctx {num_ctx}": full} if full else {}), long


def verdict(found: Parity, model: str, digest: str, version: str) -> dict[str, Any]:
    """The content of parity.json."""
    return {
        "equal": not found.differences, "model": model, "digest": digest, "gguf_sha256": found.gguf, "ollama": version,
        "conversations": found.conversations, "left_out": found.left_out,
        "counts": dict(Counter(d.what for d in found.differences)), "causes": found.causes,
        "control_tokens": found.control_tokens,
        "differences": [asdict(difference) for difference in found.differences[:KEPT]], "seconds": found.seconds,
    }  # fmt: skip


def describe(model: str, found: Parity, out: Path) -> str:
    """The result in one line, the likely causes, and the first differences with both texts."""
    lines = [f"{len(found.left_out)} conversations left out, longer than num_ctx"] if found.left_out else []
    if not found.differences:
        equal = f"{found.conversations} conversations equal in text, token ids and count, and every parameter"
        lines.insert(0, f"{model}: served as trained: {equal}, in {found.seconds:.0f} s ({out})")
    else:
        where = {difference.where for difference in found.differences}
        lines.insert(
            0, f"{model}: NOT served as trained: {len(found.differences)} differences in {len(where)} places ({out})"
        )
        lines += [f"likely cause: {cause}" for cause in found.causes]
        for d in found.differences[:SHOWN]:
            lines.append(f"{d.where}: {d.what}\n  trained {_around(d.trained, d)}\n  served  {_around(d.served, d)}")
    return "\n".join([*lines, *control_line(found.control_tokens)])


def _around(value: Any, difference: Difference) -> str:
    """A long value, cut to the part around the first difference."""
    written, trained, served = repr(value), repr(difference.trained), repr(difference.served)
    if len(written) <= 2 * WIDE:
        return written
    same = next(
        (i for i, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b), min(len(trained), len(served))
    )
    start = max(0, same - WIDE // 2)
    return f"{'... ' if start else ''}{written[start : start + WIDE]}{' ...' if start + WIDE < len(written) else ''}"


def control_line(tokens: dict[str, dict[str, Any]]) -> list[str]:
    """In one line, how control tokens in a user's words are read."""
    taken = [text for text, found in tokens.items() if found["served as"] == "control token"]
    if taken:
        return [
            f"a user's words {' '.join(taken)} become control tokens, both in training and when served: equal, "
            "but open to injection; refuse or mask them before they are sent"
        ]
    return ["a user's words [INST] [/INST] <s> </s> stay text when served"] if tokens else []


def _watched(conversations: Conversations) -> Iterator[tuple[str, list[Message]]]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    items = list(conversations.items())
    yield from track(items, "comparing", console=console) if sys.stderr.isatty() else items


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.parity", description="Check that a registered model gets the prompts it was trained with."
    )
    parser.add_argument("folder", metavar="MODEL_DIR", nargs="?", help="the model folder that was registered")
    parser.add_argument("--model", default=MODEL, help=f"its name in Ollama (default {MODEL})")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    parser.add_argument("--base", metavar="DIR", help="the base's folder, with the tokenizer used in training")
    parser.add_argument("--data", metavar="DIR", help=f"a dataset: {REQUESTS} requests of its test split are added")
    parser.add_argument("--out", help="where to write the result (default: parity.json beside MODEL_DIR)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--modelfile", metavar="FILE", help="check this Modelfile for faults instead; needs no server")
    return parser


if __name__ == "__main__":
    run(main)

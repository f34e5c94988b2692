"""Model folder + its adapter and base -> is the export faithful?  `python -m quantize.check MODEL_DIR`

The same prompts go through the f16 GGUF (exported into a temporary folder when MODEL_DIR holds none), the adapter in
torch (base + LoRA, float32, a matrix at a time) and each quantised GGUF.  The f16 file is held against torch, the others against the f16 file:
so a fault of the export and the loss of the quantisation stand apart.  Of an adapter that was trained on a 4-bit base
both bases are compared too.  Exit 2 when a bound of check_figures.py is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from contract.base import Base, load_base
from contract.contract import load_contract
from contract.example import read_examples
from models.base_folder import base_digest, check_base_folder, find_base_folder, weight_files
from plumbing.errors import UserError, run
from plumbing.handover import Manifest, check_outputs, new_file, read_manifest, sha256
from quantize.adapter_config import ADAPTER_WEIGHTS
from quantize.check_figures import EXPORTED, ONTO, QUANTISED, UNKNOWN, Compared, Seen, compare
from quantize.check_models import open_gguf
from quantize.check_torch import Answer, torch_logits, torch_memory, training_tokenizer
from quantize.preflight import check_available, check_disk

F16 = "model.f16.gguf"
ROWS = 16  # of --data: about 2,000 predicted tokens
GREEDY = 64  # tokens at most of each greedy answer
TERMS = ("Hypertension", "Edema", "Tachycardia", "Biopsy", "Anemia", "Homeostasis", "ECG", "Insulin resistance")
TEXTS = (  # on which tokenizers fall out: blanks, digits, bytes, marks beside words
    "Hello world", "  two blanks", "a\n\nb\tc", "1234567 mg, 0.5 %", "naïve \u03bcg \u2265 \u65e5\u672c \U0001f600",
    "tokenization of uncharacteristically long words", "[INST] x[/INST]", "don't (\"quote\") e.g. A/B-C",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What the model was made from, proved by the digests of its manifest."""

    folder: Path  # the model's
    manifest: Manifest
    base: Base
    base_folder: Path
    adapter: Path | None  # None: an untuned export

    def onto(self) -> str:
        return str(self.manifest["settings"].get("onto", "16bit"))

    def ggufs(self) -> list[str]:
        return [name for name in self.manifest["outputs"] if re.fullmatch(r"model\.\w+\.gguf", name)]


@dataclass(frozen=True)
class Task:
    """What is asked: texts to tokenize, prompts to answer, and answers to predict; none: the f16 file's own."""

    texts: list[str]
    prompts: list[list[int]]
    forced: list[Answer]
    stop: int

    def room(self) -> int:
        return max([len(ids) for ids, _ in self.forced] + [len(ids) + GREEDY for ids in self.prompts]) + 1

    def answered(self, by: Seen) -> list[Answer]:
        """The prompts with the answers that a model gave to them."""
        return [(ids + answer, len(ids)) for ids, answer in zip(self.prompts, by.greedy, strict=True)]


def main() -> int:
    args = _parser().parse_args()
    source = open_source(Path(args.model), args.adapter, args.base)
    found = check(source, read_pairs(source, args.data))
    text = json.dumps(verdict(source, found, args.data), indent=2, ensure_ascii=False)
    out = source.folder.parent / "check.json"
    with new_file(out) as file:
        file.write_text(text + "\n", encoding="utf-8")
    print(text if args.json else f"{table(found)}\n{out}")
    return 2 if any(one.faults for one in found) else 0


def open_source(folder: Path, adapter: str | None = None, base_folder: str | None = None) -> Source:
    """Raises UserError when a folder is not what it should be, or not what the model was made from."""
    manifest = read_manifest(folder, "model")
    check_outputs(folder, manifest)
    base, settings = load_base(folder / "base.toml"), manifest["settings"]
    exported = settings.get("base_folder")
    if base_folder is None and exported and Path(exported).is_dir():
        where = check_base_folder(Path(exported), base)
    else:
        where = find_base_folder(base, base_folder)
    if manifest["inputs"].get("base") != base_digest(where):
        raise UserError(f"{where}: not the base that {folder} was made from; name that with --base DIR")
    tuned = Path(adapter) if adapter else folder.parent / "adapter"
    if settings.get("base_only") and not (tuned / "manifest.json").is_file():
        return Source(folder, manifest, base, where, None)
    if not tuned.is_dir():
        raise UserError(f"{tuned}: no such adapter folder; name the one that {folder} was made from with --adapter DIR")
    check_outputs(tuned, read_manifest(tuned, "adapter"))
    if settings.get("base_only"):
        return Source(folder, manifest, base, where, None)
    if manifest["inputs"].get("adapter") != sha256(tuned / ADAPTER_WEIGHTS):
        raise UserError(f"{tuned}: not the adapter that {folder} was made from; name that with --adapter DIR")
    return Source(folder, manifest, base, where, tuned)


def read_pairs(source: Source, data: str | None) -> list[tuple[str, str]]:
    """Prompts and expected answers as text; without a dataset the answers are "": the reference's own will do."""
    contract = load_contract(source.folder / "task.toml")
    system = {"role": "system", "content": contract.system_prompt()}

    def prompt(request: str) -> str:
        return source.base.prompt([system, {"role": "user", "content": request}])

    if not data:
        return [(prompt(f"Explain the medical term: {term}"), "") for term in TERMS]
    examples = read_examples(Path(data) / "test.jsonl", contract)
    step = max(1, len(examples) // ROWS)
    return [(prompt(e.request), source.base.completion(e.response)) for e in examples[::step][:ROWS]]


def check(source: Source, pairs: Sequence[tuple[str, str]]) -> list[Compared]:
    """One model in memory at a time; of each, only the logits of the answers are kept."""
    tokenize = training_tokenizer(source.base_folder, source.base)
    task = _task(tokenize, source.base, pairs)
    _check_memory(source, task)
    with _exported(source) as f16:
        exported = _see(f16, source.base, task)
        task = replace(task, forced=task.forced or task.answered(exported))
        torch = {onto: _trained(source, onto, task, exported, tokenize) for onto in _bases(source)}
    found = [compare(exported, torch[source.onto()], EXPORTED)]
    if len(torch) > 1:
        found.append(compare(*(replace(seen, name=f"torch on {onto}") for onto, seen in torch.items()), ONTO))
    for name in source.ggufs():
        if name != F16:
            bound = QUANTISED.get(name.split(".")[1], UNKNOWN)
            found.append(compare(_see(source.folder / name, source.base, task), exported, bound))
    return found


@contextlib.contextmanager
def _exported(source: Source) -> Iterator[Path]:
    """The f16 file of the folder, or one that is exported for this check alone."""
    if F16 in source.ggufs():
        yield source.folder / F16
        return
    if source.adapter is None:
        raise UserError(f"{source.folder}: an untuned model without {F16}; export it with --type f16 as well")
    from quantize.__main__ import export

    size = sum(path.stat().st_size for path in weight_files(source.base_folder))  # at most: float32 is halved
    check_disk(
        Path(tempfile.gettempdir()), size, "set TMPDIR to a folder that has it, or export with --type f16 as well"
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        export(source.adapter, Path(folder) / "model", "f16", str(source.base_folder), onto=source.onto())
        yield Path(folder) / "model" / F16


def _task(tokenize: Callable[[str], list[int]], base: Base, pairs: Sequence[tuple[str, str]]) -> Task:
    """Token ids by the training tokenizer; what the context cannot hold is left out."""
    prompts = [tokenize(prompt) for prompt, _ in pairs]
    forced = [
        (tokenize(prompt + answer), len(ids)) for (prompt, answer), ids in zip(pairs, prompts, strict=True) if answer
    ]
    fitting = [(ids, start) for ids, start in forced if len(ids) <= base.context_length]
    short = [ids for ids in prompts if len(ids) + GREEDY <= base.context_length]
    if not (fitting if forced else short):
        raise UserError(f"no prompt fits the base's context of {base.context_length} tokens with its answer")
    return Task([*TEXTS, *(prompt + answer for prompt, answer in pairs)], short, fitting, tokenize(base.stop)[-1])


def _check_memory(source: Source, task: Task) -> None:
    """Raises UserError, before anything is exported, when torch's part would not fit."""
    longest = [*task.forced, *((ids + [task.stop] * GREEDY, len(ids)) for ids in task.prompts)]
    check_available(torch_memory(source.base_folder, longest), "close other programs")


def _see(path: Path, base: Base, task: Task) -> Seen:
    """Without answers to predict, its own are predicted."""
    _tell(path.name)
    with open_gguf(path, base, task.room()) as model:
        ids = [model.tokenize(text) for text in task.texts]
        seen = Seen(path.name, ids, [], [model.greedy(prompt, task.stop, GREEDY) for prompt in task.prompts])
        forced = task.forced or task.answered(seen)
        return replace(seen, logits=[model.logits(ids)[start - 1 : -1] for ids, start in forced])


def _bases(source: Source) -> list[str]:
    """Onto which base the model is compared in torch: its own, and both where the adapter was trained in 4 bits."""
    if source.adapter and read_manifest(source.adapter, "adapter")["settings"].get("load_in_4bit"):
        return ["16bit", "nf4"]
    return [source.onto()]


def _trained(source: Source, onto: str, task: Task, exported: Seen, tokenize: Callable[[str], list[int]]) -> Seen:
    """The adapter in torch.  Its own answers are followed as far as they are the exported model's, and a token more."""
    _tell(f"torch on {onto}")
    spoken = task.answered(exported)
    asked = [*task.forced, *(answer for answer in spoken if answer not in task.forced)]
    logits = torch_logits(source.base_folder, source.adapter, onto, asked)
    likeliest = [logits[asked.index(answer)].argmax(axis=1).tolist() for answer in spoken]
    greedy = [follow(answer, own) for answer, own in zip(exported.greedy, likeliest, strict=True)]
    return Seen("torch", [tokenize(text) for text in task.texts], logits[: len(task.forced)], greedy)


def follow(answer: Sequence[int], likeliest: Sequence[int]) -> list[int]:
    """The answer up to the first token that was not the likeliest behind those before it, and the one that was.

    >>> follow([5, 6, 7], [5, 9, 7])
    [5, 9]
    """
    end = next((n for n, (told, own) in enumerate(zip(answer, likeliest, strict=True)) if told != own), len(answer))
    return [*answer[:end], *likeliest[end : end + 1]]


def _tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def verdict(source: Source, found: Sequence[Compared], data: str | None) -> dict[str, Any]:
    """What check.json holds: no path of this machine, so that it may be published."""
    weights: Mapping[str, str] = {name: source.manifest["outputs"][name] for name in source.ggufs()}
    return {
        "verdict": "unfaithful" if any(one.faults for one in found) else "faithful",
        "weights": weights,
        "adapter": source.manifest["inputs"].get("adapter"),
        "base": source.manifest["inputs"].get("base"),
        "prompts": "test split" if data else "built in",
        "compared": [asdict(one) for one in found],
    }


def table(found: Sequence[Compared]) -> str:
    """A line a comparison, and below it what misses a bound."""
    lines = [f"{'file':18} {'against':14} {'ids':>7} {'KL mean':>9} {'KL max':>9} {'top-1':>8} {'greedy':>7}  verdict"]
    for one in found:
        ids = f"{one.texts - len(one.other_ids)}/{one.texts}"
        greedy = f"{one.prompts - one.diverging}/{one.prompts}"
        lines.append(
            f"{one.measured:18} {one.reference:14} {ids:>7} {one.kl_mean:9.2e} {one.kl_max:9.2e} "
            f"{100 * one.top1:6.2f} % {greedy:>7}  {'FAIL' if one.faults else 'pass'}"
        )
    for one in found:
        if one.first:
            lines.append(
                f"{one.measured}: first diverging greedy token: position {one.first['position']} of prompt "
                f"{one.first['prompt']} (token {one.first['measured']}, {one.reference} says {one.first['reference']})"
            )
        lines += [f"{one.measured}: {fault} ({one.bound.why})" for fault in one.faults]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.check", description="Hold a model folder's GGUFs against the adapter in torch."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("--adapter", metavar="DIR", help="what it was made from (default: adapter beside MODEL_DIR)")
    parser.add_argument("--base", metavar="DIR", help="the base's folder (default: where the model was exported)")
    parser.add_argument("--data", metavar="DIR", help="take prompts and answers from this dataset's test split")
    parser.add_argument("--json", action="store_true", help="print check.json")
    return parser


if __name__ == "__main__":
    run(main)

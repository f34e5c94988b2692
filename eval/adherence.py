"""A served model + a dataset's held-out split -> report folder: how often do answers keep the contract?

python -m eval.adherence                                   # medical-mistral on the local Ollama, the whole test split
python -m eval.adherence --gguf artifacts/terminology/tiny/model/model.q4_k_m.gguf
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from contract.contract import Contract, load_contract
from contract.errors import UserError, run
from contract.example import SPLITS, Example, read_examples
from contract.handover import check_outputs, check_replaceable, read_manifest, sha256
from eval.backends import Answer, Ask, Backend, Request, open_replay
from eval.report import Judged, Report, summarise, summary, write_report
from eval.verdict import judge

DATA = "artifacts/terminology/dataset"
MODEL = "medical-mistral"
GIVE_UP_AFTER = 10  # requests in a row without an answer: the server is gone or sick, the rest would only wait


def main() -> None:
    args = _parser().parse_args()
    started = time.monotonic()
    contract, examples = read_data(Path(args.data), args.split)
    examples = sample(examples, args.limit)
    with open_backend(args) as backend:
        out = (
            Path(args.out) if args.out else Path(args.data).parent / "reports" / re.sub(r"[^\w.-]+", "-", backend.model)
        )
        check_replaceable(out, "report")
        asked = time.monotonic()
        rows = ask_all(contract, backend.ask, examples, args.concurrency)
        seconds = time.monotonic() - asked
        pins = backend.pins()
    check_answered(rows)
    report = summarise(contract, backend.kind, backend.model, rows, seconds)
    folder = Path(args.data)
    inputs = {name: sha256(folder / name) for name in (f"{args.split}.jsonl", "task.toml", "manifest.json")}
    settings = {
        "backend": backend.kind, "model": backend.model, **pins, "split": args.split, "limit": args.limit,
        "temperature": 0, "seed": 0, "concurrency": args.concurrency, "reading": "strict", "system": "as served",
    }  # fmt: skip
    write_report(out, report, rows, inputs, settings, started)
    print(report.to_json() if args.json else f"{table(report)}\nreport: {out / 'report.md'}")


def read_data(folder: Path, split: str) -> tuple[Contract, list[Example]]:
    """The task's contract and the split's checked rows.  Raises UserError when there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such dataset; `python -m data_gen terminology --out {folder}` makes one")
    if not (folder / f"{split}.jsonl").is_file():
        raise UserError(
            f"{folder}: no {split} split there ({split}.jsonl); `python -m data_gen` writes all of {', '.join(SPLITS)}"
        )
    manifest = read_manifest(folder, "dataset")
    check_outputs(folder, manifest)
    contract = load_contract(folder / "task.toml")
    return contract, read_examples(folder / f"{split}.jsonl", contract)


def sample(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """`limit` rows, even over categories, each concept once before any twice; always the same, in file order."""
    if limit is None or limit >= len(examples):
        return list(examples)
    seen: dict[str, int] = {}
    ranked: dict[str, list[tuple[int, bytes, int]]] = {}
    for number, example in enumerate(examples):
        turn = seen[example.concept] = seen.get(example.concept, -1) + 1
        draw = hashlib.sha256(example.concept.encode()).digest()  # or the first of the alphabet would stand for all
        ranked.setdefault(example.category, []).append((turn, draw, number))
    places = [(place, name, row[-1]) for name, group in ranked.items() for place, row in enumerate(sorted(group))]
    return [examples[number] for number in sorted(row[-1] for row in sorted(places)[:limit])]


def open_backend(args: argparse.Namespace) -> AbstractContextManager[Backend]:
    """The one backend that the arguments name."""
    if args.replay:
        return open_replay(Path(args.replay))
    if args.gguf:
        from eval.embedded import open_gguf

        if args.concurrency > 1:
            raise UserError(
                "--gguf answers one request at a time; leave --concurrency out, or let Ollama serve the model"
            )
        return open_gguf(Path(args.gguf))
    from contract.ollama_address import server_url
    from eval.server import Server, open_ollama

    return open_ollama(Server(server_url(args.host)), args.model or MODEL)


def ask_all(contract: Contract, ask: Ask, examples: Sequence[Example], concurrency: int = 1) -> list[Judged]:
    """Every example asked and judged, in order.  Only the user's words are sent: the served SYSTEM acts.

    Raises UserError when GIVE_UP_AFTER requests in a row got no answer.
    """
    rows: list[Judged] = []
    requests = [Request(example.id, ({"role": "user", "content": example.request},)) for example in examples]
    with _answers(ask, requests, concurrency) as answers:
        for example, answer in zip(examples, _watched(answers, len(requests)), strict=True):
            rows.append(Judged(example, answer, None if answer.error_kind else judge(contract, example, answer)))
            last = rows[-GIVE_UP_AFTER:]
            if len(last) == GIVE_UP_AFTER and all(row.answer.error_kind in ("transport", "server") for row in last):
                raise UserError(
                    f"{GIVE_UP_AFTER} requests in a row got no answer ({answer.error}); no report was written"
                )
    return rows


@contextmanager
def _answers(ask: Ask, requests: Sequence[Request], concurrency: int) -> Iterator[Iterable[Answer]]:
    if concurrency == 1:
        yield map(ask, requests)
        return
    pool = ThreadPoolExecutor(concurrency)
    try:
        yield pool.map(ask, requests)
    finally:
        pool.shutdown(cancel_futures=True)


def _watched(answers: Iterable[Answer], total: int) -> Iterator[Answer]:
    """The answers as they come, with a bar on a terminal, a line a tenth elsewhere; on stderr: stdout is --json's."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(answers, "asking", total=total, console=Console(stderr=True))
        return
    tenth = max(1, total // 10)
    for number, answer in enumerate(answers, 1):
        yield answer
        if number % tenth == 0 or number == total:
            print(f"answered {number} of {total}", file=sys.stderr, flush=True)


def check_answered(rows: Sequence[Judged]) -> None:
    """Raises UserError when more than half of the requests got no answer: the rest would be no sample of the model."""
    lost = [row.answer for row in rows if row.answer.error_kind]
    if 2 * len(lost) > len(rows):
        raise UserError(
            f"{len(lost)} of {len(rows)} requests got no answer (first: {lost[0].error}); "
            "mend that and run again; no report was written"
        )


def table(report: Report) -> str:
    """What a person wants to know first."""
    lines = [f"{report.model}: adherence {report.adherence}", summary(report)]
    for what, rates in (("section", report.sections), ("category", report.categories)):
        lines += [f"  {what:9}{name:24}{rate}" for name, rate in rates.items()]
    lines += [f"  failed   {cls:24}{n}" for cls, n in report.primary.items()]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.adherence", description="Judge a model by its task's contract."
    )
    backend = parser.add_mutually_exclusive_group()
    backend.add_argument("--model", help=f"a model registered with Ollama (default {MODEL})")
    backend.add_argument("--gguf", metavar="FILE", help="a model folder's GGUF, answered in this process by llama.cpp")
    backend.add_argument("--replay", metavar="FILE", help="recorded answers: JSONL of {id, text, done_reason}")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    parser.add_argument("--data", default=DATA, help=f"the dataset folder (default {DATA})")
    parser.add_argument("--split", default="test", choices=SPLITS, help="which rows to ask (default test)")
    parser.add_argument("--limit", type=_positive, metavar="N", help="ask N rows, even over categories and concepts")
    parser.add_argument("--out", help="the report folder (default: reports/<model> beside the dataset)")
    parser.add_argument("--json", action="store_true", help="print report.json instead of the table")
    parser.add_argument("--concurrency", type=_positive, default=1, metavar="N", help="requests at a time (default 1)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


if __name__ == "__main__":
    run(main)

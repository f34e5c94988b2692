"""Requests a second of eval.adherence and of a bare httpx loop, on the same server.

    python -m benchmarks.bench_eval_overhead --model medical-mistral:tiny

eval.adherence judges and records each answer, with an fsync; the loop reads the JSON and drops it.  They take turns,
`--rounds` times, and each is first as often as second, so that other work on the machine slows both.  The fastest rounds
are the least disturbed ones.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from contract.contract import Contract
from eval.exam.asking import Question, ask_all, conversations, plan
from eval.exam.conditions import sample
from eval.exam.data import read_data
from eval.exam.recording import open_recording
from eval.settings import DATA
from models.answers import Backend
from models.ollama_address import server_url
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from plumbing.errors import run


def main() -> None:
    args = _parser().parse_args()
    contract, splits = read_data(Path(args.data), "test")
    asked = conversations(contract, "served", [], sample(splits["test"], args.limit))
    questions = plan(asked, "served", [0.0], 1, 0)
    settings = {"num_predict": args.tokens}
    with open_ollama(Server(server_url(args.host)), args.model, settings) as backend:
        _bare(backend, args.model, server_url(args.host), questions[:8], args.concurrency)  # loads the model
        pairs = [_pair(contract, backend, args, questions, ours_first=bool(n % 2)) for n in range(args.rounds)]
    bare, ours = (list(column) for column in zip(*pairs, strict=True))
    for name, spent in (("bare httpx loop", bare), ("eval.adherence", ours)):
        fastest, usual = len(questions) / min(spent), len(questions) / median(spent)
        print(f"{name:18}{fastest:8.1f} requests/s in the fastest round, {usual:.1f} in the median one")
    print(f"ratio {100 * min(bare) / min(ours):.1f} % of the fastest rounds, {100 * median(bare) / median(ours):.1f} % of "
          f"the medians ({args.rounds} rounds of {len(questions)} at concurrency {args.concurrency})")  # fmt: skip


def _pair(
    contract: Contract, backend: Backend, args: argparse.Namespace, questions: Sequence[Question], ours_first: bool
) -> tuple[float, float]:
    """Seconds of the loop and of ours, one directly after the other."""
    ours = _ours(contract, backend, questions, args.concurrency) if ours_first else None
    bare = _bare(backend, args.model, server_url(args.host), questions, args.concurrency)
    return bare, ours or _ours(contract, backend, questions, args.concurrency)


def _ours(contract: Contract, backend: Backend, questions: Sequence[Question], concurrency: int) -> float:
    with tempfile.TemporaryDirectory(dir=".") as folder, open_recording(Path(folder) / "answers.jsonl") as recording:
        started = time.monotonic()
        rows = ask_all(contract, backend, questions, concurrency, recording)
        seconds = time.monotonic() - started
    assert not any(row.answer.error_kind for row in rows), "a request failed: the two did not do the same work"
    return seconds


def _bare(backend: Backend, model: str, url: str, questions: Sequence[Question], concurrency: int) -> float:
    """The smallest program that asks the same: one client, a pool of threads."""
    import httpx

    bodies = [
        {"model": model, "messages": list(question.request.messages), "stream": False, "truncate": False, "shift": False,
         "options": {**backend.options, **question.request.options}}
        for question in questions
    ]  # fmt: skip
    with httpx.Client(base_url=url, timeout=300, trust_env=False) as client, ThreadPoolExecutor(concurrency) as pool:
        started = time.monotonic()
        for response in pool.map(lambda body: client.post("/api/chat", json=body), bodies):
            response.raise_for_status().json()
        return time.monotonic() - started


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_eval_overhead",
        description="Measure what judging and recording cost on top of asking.",
    )
    parser.add_argument("--model", default="medical-mistral:tiny", help="a model registered with Ollama")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    parser.add_argument("--data", default=DATA, help=f"the dataset folder (default {DATA})")
    parser.add_argument("--limit", type=int, default=40, help="requests a round (default 40)")
    parser.add_argument("--tokens", type=int, default=77, help="the longest answer, in tokens (default 77)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each (default 15)")
    parser.add_argument("--concurrency", type=int, default=4, help="requests at a time (default 4)")
    return parser


if __name__ == "__main__":
    run(main)

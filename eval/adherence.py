"""A served model + a dataset's held-out split -> report folder: how often do answers keep the contract?

python -m eval.adherence                                   # medical-mistral on the local Ollama, the whole test split
python -m eval.adherence --gguf artifacts/terminology/tiny/model/model.q4_k_m.gguf
python -m eval.adherence --model medical-mistral:tiny --against medical-mistral:tiny-base --gate gate.toml

Every answer goes at once to OUT.answers.jsonl beside the report: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.contract import Contract
from contract.example import Example
from eval.exam.arguments import parser
from eval.exam.asking import ask_all, check_errors, conversations, plan
from eval.exam.comparison import Compared, compared, pretended
from eval.exam.conditions import few_shots, sample
from eval.exam.connect import open_backend, open_other
from eval.exam.data import read_data
from eval.exam.leak_checks import check_prompts
from eval.exam.recording import Recording, open_recording
from eval.exam.tally import progress
from eval.exam.temperatures import ladder
from eval.gates.gate import Gate, judge_gate, load_gate, to_markdown
from eval.gates.gate_rates import figures, known
from eval.gates.junit import to_junit
from eval.judge.answer_row import Judged, with_content
from eval.report.markdown import table
from eval.report.report import Evidence, summarise, write_report
from models.answers import Backend, ReplacedError
from models.options import read_settings
from plumbing.errors import UserError, run
from plumbing.handover import check_replaceable, sha256


@dataclass(frozen=True)
class Asked:
    """One model's answers to everything it was asked, and what it was, exactly."""

    backend: Backend
    rows: list[Judged]
    kept: int  # of them, recorded by an earlier run
    pins: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Exam:
    """What every model is asked."""

    contract: Contract
    examples: Sequence[Example]
    train: Sequence[Example]  # for few-shot prompts

    def conversations(self, condition: str, shots: int) -> list[tuple[Example, tuple[Any, ...]]]:
        told = few_shots(self.train, self.examples, shots)
        return conversations(self.contract, condition, told, self.examples)


def main() -> int:
    args = parser().parse_args()
    started = time.monotonic()
    settings = read_settings(args.set)
    _check_others(args, settings)
    contract, splits = read_data(Path(args.data), args.split)
    exam = Exam(contract, sample(splits[args.split], args.limit), splits["train"])
    for shots in {args.few_shot, args.against_shots or 0}:
        check_prompts(contract, exam.conversations(args.condition, shots))
    gate = _gate(args, exam)
    with open_backend(args, settings) as backend:
        out = Path(args.out) if args.out else _place(Path(args.data), backend.model, args)
        check_replaceable(out, "report")
        with _recording(out, args) as recording:
            asked = _ask(exam, backend, args, recording, args.condition, args.few_shot)
    others: dict[str, Asked] = {}
    if args.against:
        with _recording(out, args) as recording:
            others = _others(exam, args, settings, recording)
    return _report(exam, asked, others, gate, out, args, started)


def _check_others(args: argparse.Namespace, settings: Mapping[str, Any]) -> None:
    """Whether the models of --against are there at all: told before the first request, not after the last."""
    if args.against_shots and not args.against:
        raise UserError("--against-shots says how the other models are asked: name one with --against MODEL")
    for name in args.against:
        with open_other(name, args, settings) as backend:
            if backend.kind == "replay" and args.against_shots:
                raise UserError(f"--against {name}: recorded answers cannot be asked again with --against-shots")


@contextmanager
def _recording(out: Path, args: argparse.Namespace) -> Iterator[Recording | None]:
    """The file beside the report that an answer goes to as it comes; none where all of them are replayed."""
    if args.replay and not args.against:
        yield None
        return
    with open_recording(out.with_name(f"{out.name}.answers.jsonl")) as recording:
        for note in recording.notes:
            _say(note)
        if args.fresh:
            recording.answers.clear()
        yield recording


def _gate(args: argparse.Namespace, exam: Exam) -> Gate | None:
    """Read before the first request is sent: a fault in it must not cost a run."""
    if not args.gate:
        return None
    requests = {example.id: example.request for example in exam.examples}
    return load_gate(Path(args.gate), known(exam.contract, exam.examples), requests)


def _ask(
    exam: Exam, backend: Backend, args: argparse.Namespace, recording: Recording | None, condition: str, shots: int,
    temperatures: Sequence[float] | None = None,
) -> Asked:  # fmt: skip
    """Every question answered, or found in the recording, and judged."""
    seed = backend.options.get("seed", 0)
    repeats = 1 if temperatures else args.repeats
    questions = plan(exam.conversations(condition, shots), condition, temperatures or args.temperatures, repeats, seed)
    recording = recording if backend.identity else None
    started, before = time.monotonic(), len(recording.added) if recording else 0
    try:
        with progress(len(questions)) as told:
            rows = ask_all(exam.contract, backend, questions, args.concurrency, recording, told)
    except (UserError, KeyboardInterrupt):
        with suppress(UserError):  # it ends by the first error; what another model answered must not stay
            _pins(backend, recording)
        raise
    failed = sum(bool(row.answer.error_kind) for row in rows)
    kept = len(rows) - (len(recording.added) - before) - failed if recording else 0
    if recording and kept:
        _say(f"{kept} of {len(rows)} answers were recorded before in {recording.path}; --fresh asks anew")
    pins = _pins(backend, recording)
    check_errors(rows, args.max_errors, f" (the others are kept in {recording.path})" if recording else "")
    return Asked(backend, with_content(exam.contract, rows), kept, pins, time.monotonic() - started)


def _pins(backend: Backend, recording: Recording | None) -> dict[str, Any]:
    """What was measured.  When the model was replaced, some answers are another's: those of this run are withdrawn."""
    try:
        return backend.pins()
    except ReplacedError:
        if recording:
            recording.withdraw()
        raise


def _others(
    exam: Exam, args: argparse.Namespace, settings: Mapping[str, Any], recording: Recording | None
) -> dict[str, Asked]:
    """The models of --against, each told the form as a model of ours tells itself, once more with examples if wanted."""
    condition = "system" if args.condition == "served" else args.condition
    found: dict[str, Asked] = {}
    for name in dict.fromkeys(args.against):
        with open_other(name, args, settings) as backend:
            for shots in dict.fromkeys((args.few_shot, args.against_shots or args.few_shot)):
                title = name + (f", {shots} example{'s' * (shots > 1)} told" if shots else "")
                found[title] = _ask(exam, backend, args, recording, condition, shots, args.temperatures[:1])
    return found


def _report(
    exam: Exam, asked: Asked, others: Mapping[str, Asked], gate: Gate | None, out: Path, args: argparse.Namespace,
    started: float,
) -> int:  # fmt: skip
    """Write the report, print it, and tell by the exit code what the gate says."""
    first, further = asked.rows[: len(exam.examples)], asked.rows[len(exam.examples) :]
    report = summarise(exam.contract, asked.backend.kind, asked.backend.model, first, asked.seconds)
    report = dataclasses.replace(
        report, condition=args.condition, ladder=ladder(asked.rows, args.repeats), others=_lines(exam, first, others)
    )
    outcome = (
        judge_gate(gate, figures(exam.contract, first), {row.example.id: row.result for row in first}) if gate else None
    )
    files = {"gate.md": to_markdown(outcome), "junit.xml": to_junit(outcome)} if outcome else {}
    evidence = Evidence(first, further, {name: other.rows for name, other in others.items()})
    write_report(out, report, evidence, _inputs(args), _settings(exam, asked, others, args), started, files)
    print(report.to_json() if args.json else f"{table(report)}\nreport: {out / 'report.html'}")
    if outcome and not args.json:
        print(f"\n{files['gate.md']}", end="")
    return outcome.code if outcome else 0


def _lines(exam: Exam, measured: Sequence[Judged], others: Mapping[str, Asked]) -> tuple[Compared, ...]:
    models = [compared(name, other.rows, measured) for name, other in others.items()]
    return (
        *models,
        *(compared(n, rows, measured, True) for n, rows in pretended(exam.contract, exam.examples).items()),
    )


def _place(data: Path, model: str, args: argparse.Namespace) -> Path:
    """The report's own folder: another condition is another report."""
    name = re.sub(r"[^\w.-]+", "-", model)
    name += f"-{args.condition}" if args.condition != "served" else ""
    name += f"-{args.few_shot}shot" if args.few_shot else ""
    return data.parent / "reports" / name


def _inputs(args: argparse.Namespace) -> dict[str, str]:
    folder = Path(args.data)
    return {name: sha256(folder / name) for name in (f"{args.split}.jsonl", "task.toml", "manifest.json")}


def _settings(exam: Exam, asked: Asked, others: Mapping[str, Asked], args: argparse.Namespace) -> dict[str, Any]:
    """All that the figures depend on."""
    backend, prompt = asked.backend, exam.contract.system_prompt()
    same = {name: getattr(args, name) for name in (
        "split", "limit", "condition", "few_shot", "temperatures", "repeats", "concurrency", "max_errors", "against_shots"
    )}  # fmt: skip
    sent = {"options": {k: v for k, v in backend.options.items() if k != "temperature"}} if backend.options else {}
    return {
        "backend": backend.kind, "model": backend.model, **asked.pins, **same, **sent, "kept": asked.kept,
        "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
        "against": {name: {"backend": other.backend.kind, **other.pins} for name, other in others.items()},
        "hardware": {"asked from": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    named = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    return named[1] if named else platform.processor()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)

"""A served model + a dataset's held-out split -> report: how often do answers keep the contract?

python -m eval.adherence                                   # medical-mistral on the local Ollama, the whole test split
python -m eval.adherence --gguf artifacts/terminology/tiny/model/model.q4_k_m.gguf
python -m eval.adherence --model medical-mistral:tiny --against medical-mistral:tiny-base --gate gate.toml

Every answer is written at once to OUT.answers.jsonl beside the report: the same command resumes after a kill.
"""

from __future__ import annotations

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
from eval.exam.asking import ask_all, check_errors, conversations, plan
from eval.exam.comparison import Comparison, compare_models, judge_baselines
from eval.exam.conditions import few_shots, sample
from eval.exam.connect import open_backend, open_other
from eval.exam.data import read_data
from eval.exam.leak_checks import check_prompts
from eval.exam.recording import Recording, open_recording
from eval.exam.tally import progress
from eval.exam.temperatures import rates_by_temperature
from eval.gates.gate import Gate, judge_gate, load_gate, to_markdown
from eval.gates.gate_rates import gate_rates, known_names
from eval.gates.junit import to_junit
from eval.judge.answer_row import AnswerRow, with_content
from eval.report.markdown import to_terminal
from eval.report.report import Evidence
from eval.report.summarise import summarise
from eval.report.write import write_report
from eval.settings import Settings, read_command_line
from models.answers import Backend, ReplacedError
from plumbing.errors import UserError, run
from plumbing.handover import check_replaceable, sha256


@dataclass(frozen=True)
class Answered:
    """One model's answers to everything it was asked, and exactly which model it was."""

    backend: Backend
    rows: list[AnswerRow]
    kept: int  # of the rows, recorded by an earlier run
    pins: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Exam:
    """What every model is asked."""

    settings: Settings
    contract: Contract
    examples: Sequence[Example]
    train: Sequence[Example]  # for few-shot prompts

    def conversations(self, shots: int, condition: str = "") -> list[tuple[Example, tuple[Any, ...]]]:
        earlier = few_shots(self.train, self.examples, shots)
        return conversations(self.contract, condition or self.settings.condition, earlier, self.examples)


def main() -> int:
    settings, started = read_command_line(), time.monotonic()
    for name in settings.against:  # a missing model is reported before the first request, not after the last
        with open_other(name, settings):
            pass
    contract, splits = read_data(settings.data, settings.split)
    exam = Exam(settings, contract, sample(splits[settings.split], settings.limit), splits["train"])
    for shots in {settings.few_shot, settings.against_shots or 0}:
        check_prompts(contract, exam.conversations(shots))
    gate = _gate(exam)
    with open_backend(settings) as backend:
        out = settings.out or _default_folder(backend.model, settings)
        check_replaceable(out, "report")
        with _recording(out, settings) as recording:
            answered = _ask(exam, backend, recording, settings.condition, settings.few_shot, settings.temperatures)
    others: dict[str, Answered] = {}
    if settings.against:
        with _recording(out, settings) as recording:
            others = _ask_others(exam, recording)
    return _report(exam, answered, others, gate, out, started)


@contextmanager
def _recording(out: Path, settings: Settings) -> Iterator[Recording | None]:
    """The file beside the report that takes each answer as it comes; None where all of them are replayed."""
    if settings.replay and not settings.against:
        yield None
        return
    with open_recording(out.with_name(f"{out.name}.answers.jsonl")) as recording:
        for note in recording.notes:
            _note(note)
        if settings.fresh:
            recording.answers.clear()
        yield recording


def _gate(exam: Exam) -> Gate | None:
    """Read before the first request is sent, so that a fault in it does not cost a run."""
    if not exam.settings.gate:
        return None
    requests = {example.id: example.request for example in exam.examples}
    return load_gate(exam.settings.gate, known_names(exam.contract, exam.examples), requests)


def _ask(
    exam: Exam, backend: Backend, recording: Recording | None, condition: str, shots: int,
    temperatures: Sequence[float], repeats: int | None = None,
) -> Answered:  # fmt: skip
    """Every question answered, or found in the recording, and judged."""
    settings, seed = exam.settings, backend.options.get("seed", 0)
    asked = exam.conversations(shots, condition)
    questions = plan(asked, condition, temperatures, repeats or settings.repeats, seed)
    recording = recording if backend.identity else None
    started, before = time.monotonic(), len(recording.added) if recording else 0
    try:
        with progress(len(questions)) as told:
            rows = ask_all(exam.contract, backend, questions, settings.concurrency, recording, told)
    except (UserError, KeyboardInterrupt):
        with suppress(UserError):  # the first error ends the run; another model's answers must still be withdrawn
            _pins(backend, recording)
        raise
    failed = sum(bool(row.answer.error_kind) for row in rows)
    kept = len(rows) - (len(recording.added) - before) - failed if recording else 0
    if recording and kept:
        _note(f"{kept} of {len(rows)} answers were recorded before in {recording.lines.path}; --fresh asks them again")
    pins = _pins(backend, recording)
    check_errors(rows, settings.max_errors, f" (the others are kept in {recording.lines.path})" if recording else "")
    return Answered(backend, with_content(exam.contract, rows), kept, pins, time.monotonic() - started)


def _pins(backend: Backend, recording: Recording | None) -> dict[str, Any]:
    """What was measured.  If the model was replaced, this run's answers may be another model's and are withdrawn."""
    try:
        return backend.pins()
    except ReplacedError:
        if recording:
            recording.withdraw()
        raise


def _ask_others(exam: Exam, recording: Recording | None) -> dict[str, Answered]:
    """The models of --against.  They get the form as a system message, which a model of ours holds as its SYSTEM."""
    settings = exam.settings
    condition = "system" if settings.condition == "served" else settings.condition
    found: dict[str, Answered] = {}
    for name in settings.against:
        with open_other(name, settings) as backend:
            for shots in dict.fromkeys((settings.few_shot, settings.against_shots or settings.few_shot)):
                title = name + (f", {shots} example{'s' * (shots > 1)} shown" if shots else "")
                found[title] = _ask(exam, backend, recording, condition, shots, settings.temperatures[:1], 1)
    return found


def _report(
    exam: Exam, answered: Answered, others: Mapping[str, Answered], gate: Gate | None, out: Path, started: float
) -> int:
    """Write the report and print it; the exit code is the gate's."""
    settings = exam.settings
    first, further = answered.rows[: len(exam.examples)], answered.rows[len(exam.examples) :]
    report = dataclasses.replace(
        summarise(exam.contract, answered.backend.kind, answered.backend.model, first, answered.seconds),
        condition=settings.condition, ladder=rates_by_temperature(answered.rows, settings.repeats),
        others=_comparisons(exam, first, others),
    )  # fmt: skip
    files, outcome = {}, None
    if gate:
        outcome = judge_gate(gate, gate_rates(exam.contract, first), {row.example.id: row.paired for row in first})
        files = {"gate.md": to_markdown(outcome), "junit.xml": to_junit(outcome)}
    evidence = Evidence(first, further, {name: other.rows for name, other in others.items()})
    names = (f"{settings.split}.jsonl", "task.toml", "manifest.json")
    inputs = {name: sha256(settings.data / name) for name in names}
    write_report(out, report, evidence, inputs, _manifest_settings(exam, answered, others), started, files)
    print(report.to_json() if settings.json else f"{to_terminal(report)}\nreport: {out / 'report.html'}")
    if outcome and not settings.json:
        print(f"\n{files['gate.md']}", end="")
    return outcome.code if outcome else 0


def _comparisons(exam: Exam, measured: Sequence[AnswerRow], others: Mapping[str, Answered]) -> tuple[Comparison, ...]:
    baselines = judge_baselines(exam.contract, exam.examples)
    return (
        *(compare_models(name, other.rows, measured) for name, other in others.items()),
        *(compare_models(name, rows, measured, pretended=True) for name, rows in baselines.items()),
    )


def _default_folder(model: str, settings: Settings) -> Path:
    """A folder for each model and condition, beside the dataset."""
    name = re.sub(r"[^\w.-]+", "-", model)
    name += f"-{settings.condition}" if settings.condition != "served" else ""
    name += f"-{settings.few_shot}shot" if settings.few_shot else ""
    return settings.data.parent / "reports" / name


def _manifest_settings(exam: Exam, answered: Answered, others: Mapping[str, Answered]) -> dict[str, Any]:
    """All that the figures depend on."""
    backend, prompt = answered.backend, exam.contract.system_prompt()
    same = {name: getattr(exam.settings, name) for name in (
        "split", "limit", "condition", "few_shot", "temperatures", "repeats", "concurrency", "max_errors", "against_shots"
    )}  # fmt: skip
    sent = {"options": {k: v for k, v in backend.options.items() if k != "temperature"}} if backend.options else {}
    return {
        "backend": backend.kind, "model": backend.model, **answered.pins, **same, **sent, "kept": answered.kept,
        "prompt": hashlib.sha256(prompt.encode()).hexdigest(),
        "against": {name: {"backend": other.backend.kind, **other.pins} for name, other in others.items()},
        "hardware": {"asked from": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    named = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    return named[1] if named else platform.processor()


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)

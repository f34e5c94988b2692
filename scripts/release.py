"""Dataset + model + gate -> can this be published?  Four checks, one line each.

    python -m scripts.release --data artifacts/terminology/dataset --model-dir artifacts/terminology/tiny/model \\
        --model medical-mistral:tiny --gate eval/gates/tiny.toml --out artifacts/terminology/tiny/release

They prove form and hand-over, not that an answer is true.  All four run, even when an earlier one fails.
Exit code: 0 all pass; 1 one could not run; 2 one fails; 3 too few answers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from plumbing.errors import run

WORDS = {0: "pass", 1: "error", 2: "fail", 3: "inconclusive"}
UNPROVED = "the truth of answers was not checked: educational, not medical advice"
WORST = (1, 2, 3, 0)  # the release exits with the first of these that a check ended with


def checks(args: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """The command of each check, the fast ones first."""
    served = ("--model", args.model, *(("--host", args.host) if args.host else ()))
    return {
        "certificate": ("data_gen.certify", args.data),
        "self-test": ("eval.selftest",),
        "parity": ("eval.parity", args.model_dir, *served, "--data", args.data),
        "gate": ("eval.adherence", *served, "--data", args.data, "--gate", args.gate, "--out", args.out),
    }


def main() -> int:
    args = _parser().parse_args()
    codes = []
    for name, command in checks(args).items():
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, encoding="utf-8",
            errors="replace", check=False,
        )  # fmt: skip
        code = done.returncode if done.returncode in WORDS else 1
        codes.append(code)
        seconds = f"({time.monotonic() - started:.0f} s)"
        print(f"{name:12}{WORDS[code]:13}{_result_line(name, done)}  {seconds}", flush=True)
    passed = codes.count(0)
    verdict = "pass" if passed == len(codes) else "no"
    print(f"{'release':12}{verdict:13}{passed} of {len(codes)} checks pass; {UNPROVED}")
    return next(code for code in WORST if code in codes)


def _result_line(check: str, done: subprocess.CompletedProcess[str]) -> str:
    """The line of a check's output that states its result."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if errors or done.returncode not in (0, 2, 3):
        return (errors or done.stderr.splitlines() or [f"ended with {done.returncode}"])[-1]
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if check == "gate":
        return next((line.removeprefix("### Gate: ") for line in lines if line.startswith("### Gate: ")), "")
    return lines[0] if lines and check in ("parity", "certificate") else (lines or [""])[-1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.release", description="Run certificate, self-test, parity and gate for one model."
    )
    parser.add_argument("--data", required=True, help="the dataset folder")
    parser.add_argument("--model-dir", required=True, help="the model folder that quantize wrote")
    parser.add_argument("--model", required=True, help="its name in Ollama")
    parser.add_argument("--gate", required=True, metavar="FILE", help="bounds as TOML")
    parser.add_argument("--out", required=True, help="the report folder")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    return parser


if __name__ == "__main__":
    run(main)

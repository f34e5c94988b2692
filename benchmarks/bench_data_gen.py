"""Time and memory to compose and certify a tenth of the rows, then all of them.

Each runs in a fresh process on one core.

python -m benchmarks.bench_data_gen [--rows 100000] [--task terminology]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from data_gen.compose.dataset import concept_groups, make_dataset
from data_gen.compose.split import SEED, split
from data_gen.compose.task_data import load_task_data
from data_gen.facts import read_facts
from data_gen.leaks.certification import certify
from plumbing.errors import UserError, run

ROWS = 100_000
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Measured:
    rows: int
    compose: float  # seconds, reading the task and the facts and checking every row included
    certify: float  # seconds
    clean: bool
    mebibytes: float  # the most memory that the process ever held

    @property
    def seconds(self) -> float:
        return self.compose + self.certify


def main() -> None:
    args = _parser().parse_args()
    if args.alone:
        print(json.dumps(asdict(measure(args.task, args.rows))))
        return
    small, large = (_in_a_fresh_process(args.task, rows) for rows in (args.rows // 10, args.rows))
    print(comparison(small, large))


def measure(task: str, rows: int) -> Measured:
    """Compose and certify `rows` rows in this process, on one core if the system can pin it there."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    started = time.perf_counter()
    contract, data, facts = load_task_data(task)
    sides = split(read_facts(facts, data.texts()), SEED)
    dataset = make_dataset(contract, data, sides, rows, SEED)
    composed = time.perf_counter()
    certificate = certify(dataset, concept_groups(sides))
    seconds = composed - started, time.perf_counter() - composed
    return Measured(certificate.rows, *seconds, certificate.clean, _peak_mebibytes())


def _peak_mebibytes() -> float:
    try:
        import resource
    except ImportError:  # Windows does not report it
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kibibytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _in_a_fresh_process(task: str, rows: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.bench_data_gen", "--task", task, "--rows", str(rows), "--alone"]
    result = subprocess.run(command, env=os.environ | _ONE_THREAD, capture_output=True, text=True)
    if result.returncode:
        why = (result.stderr.strip().splitlines() or ["without an error message"])[-1].removeprefix("error: ")
        raise UserError(f"{rows:,} rows: {why}")
    return Measured(**json.loads(result.stdout))


def comparison(small: Measured, large: Measured) -> str:
    """Both runs as a text table, and how much more the larger one took."""
    lines = [f"{'rows':>9}{'compose s':>11}{'certify s':>11}{'rows/s':>9}{'peak MiB':>10}  certificate"]
    for one in (small, large):
        speed = f"{one.rows / one.seconds:,.0f}"
        seconds = f"{one.compose:>11.1f}{one.certify:>11.1f}"
        lines.append(f"{one.rows:>9,}{seconds}{speed:>9}{one.mebibytes:>10.0f}  {'clean' if one.clean else 'leaks'}")
    more = (f"{getattr(large, what) / getattr(small, what):.1f} x" for what in ("rows", "seconds", "mebibytes"))
    return "\n".join([*lines, "{} rows take {} the time and {} the memory".format(*more)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_data_gen", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows of the larger run (default {ROWS:,})")
    parser.add_argument("--task", default="terminology", help="a shipped task or the path of a task's TOML")
    parser.add_argument(
        "--alone", action="store_true", help="measure only --rows rows, in this process, and print JSON"
    )
    return parser


if __name__ == "__main__":
    run(main)

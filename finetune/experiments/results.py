"""Finished runs' folders -> results.json, results.md and results.png."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.experiments.plan import ExperimentPlan, Run
from plumbing.errors import UserError
from plumbing.handover import new_file, read_manifest

FILES = ("results.json", "results.md", "results.png")
TITLES = ("trainable parameters", "final loss", "keeps the form (95 % interval)", "names the term", "training")


@dataclass(frozen=True)
class RunResult:
    """One run's figures, or why it failed."""

    label: str
    changes: dict[str, Any]
    fault: str = ""
    folder: str = ""  # the run's, relative to the experiment's
    trainable: int = 0  # parameters
    loss: float = 0.0  # the last one logged, in nats a response token
    seconds: float = 0.0  # of training, including loading
    adherence: dict[str, Any] = dataclasses.field(default_factory=dict)  # count, n, share, low, high: strict, Wilson's
    named: dict[str, Any] = dataclasses.field(default_factory=dict)


def read_result(run: Run, adapter: Path, report: Path) -> RunResult:
    """The figures in the adapter's manifest and the report.  Raises UserError for a report of another version."""
    manifest = read_manifest(adapter, "adapter")
    path = report / "report.json"
    try:
        judged = json.loads(path.read_text(encoding="utf-8"))
        counts = manifest["counts"]
        return RunResult(
            run.label, run.changes, "", f"runs/{adapter.parent.name}",
            counts["trainable"], counts["final_loss"], manifest["seconds"], judged["adherence"], judged["named"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a report of this version ({error}); remove {report} and run again") from None


def write_results(out: Path, plan: ExperimentPlan, results: list[RunResult], digest: str) -> None:
    """Write the table as Markdown and JSON, and the picture; each file complete or not at all."""
    table = {
        "plan": dataclasses.asdict(plan), "dataset": digest, "split": "validation",
        "hardware": {"platform": platform.platform(), "cores": os.cpu_count(),
                     "threads": os.environ.get("OMP_NUM_THREADS", "all")},
        "runs": [dataclasses.asdict(result) for result in results],
    }  # fmt: skip
    with new_file(out / "results.json") as file:
        file.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with new_file(out / "results.md") as file:
        file.write_text(to_markdown(plan, results), encoding="utf-8")
    with new_file(out / "results.png") as file:
        draw([result for result in results if not result.fault], file)


def to_markdown(plan: ExperimentPlan, results: list[RunResult]) -> str:
    """A table with one row for each run, in the order of the TOML."""
    keys = list(dict.fromkeys(key for result in results for key in result.changes))
    titles = [*keys, *TITLES]
    lines = [_line(titles), _line(["---"] * len(titles))]
    for result in results:
        changed = [str(result.changes.get(key, "")) for key in keys]
        figures = _figures(result) if not result.fault else [f"failed: {result.fault.replace('|', '/')}", *[""] * 4]
        lines.append(_line([*changed, *figures]))
    rows = f"{plan.limit} rows" if plan.limit else "all rows"
    return "\n".join([*lines, "", f"Preset `{plan.preset}`, {plan.type}, {rows} of the validation split.", ""])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figures(result: RunResult) -> list[str]:
    rate = result.adherence
    between = f" ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})" if rate["n"] else ""
    kept = f"{_percent(rate)}{between}"
    return [f"{result.trainable:,}", f"{result.loss:.3f}", kept, _percent(result.named), f"{result.seconds:.0f} s"]


def _percent(rate: dict[str, Any]) -> str:
    return f"{100 * rate['share']:.1f} %" if rate["n"] else "nothing to count"


def draw(results: list[RunResult], path: Path) -> None:
    """Four panels over the same runs: adherence with its interval, loss, time, trainable parameters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(1, 4, figsize=(14, 1.6 + 0.45 * len(results)), sharey=True)
    rows = range(len(results))
    shares = [100 * (result.adherence["share"] or 0.0) for result in results]
    low = [share - 100 * result.adherence["low"] for share, result in zip(shares, results, strict=True)]
    high = [100 * result.adherence["high"] - share for share, result in zip(shares, results, strict=True)]
    axes[0].errorbar(shares, rows, xerr=[low, high], fmt="o", capsize=4)
    axes[0].set(title="keeps the form (%), 95 % interval", xlim=(-3, 103))
    panels = (("final loss (nats)", "loss"), ("training (s)", "seconds"), ("trainable parameters", "trainable"))
    for axis, (title, name) in zip(axes[1:], panels, strict=True):
        axis.barh(rows, [getattr(result, name) for result in results])
        axis.set(title=title)
    axes[3].xaxis.set_major_formatter(ticker.EngFormatter())  # 200 k, 80 M
    axes[0].set_yticks(list(rows), [result.label for result in results])
    axes[0].invert_yaxis()
    for axis in axes:
        axis.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)

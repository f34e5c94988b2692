"""An experiment's TOML + dataset -> a table and a picture that compare settings.

    python -m finetune.experiments finetune/presets/experiments/rank.toml --data artifacts/terminology/dataset --out DIR

Each run tunes a fresh base in a separate process and is judged on the validation split, so the test split stays unseen
while settings are chosen.  Finished runs are kept: after a kill the same command continues.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from finetune.experiments.plan import load_plan
from finetune.experiments.results import FILES, to_markdown, write_results
from finetune.experiments.stages import dataset_digest, make, start
from plumbing.errors import UserError, run


def main() -> None:
    args = _parser().parse_args()
    data, out = Path(args.data), Path(args.out)
    plan, runs = load_plan(Path(args.file))
    _check_out(out)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: it also ends the running stage
    digest = dataset_digest(data)
    results = []
    for number, one in enumerate(runs, 1):
        print(f"run {number} of {len(runs)}: {one.label}", flush=True)
        results.append(make(one, plan, data, out / "runs" / one.key(digest), start))
    write_results(out, plan, results, digest)
    print(to_markdown(plan, results) + f"picture: {out / 'results.png'}")
    failed = [result for result in results if result.fault]
    if failed:
        causes = "; ".join(f"{result.label}: {result.fault}" for result in failed)
        raise UserError(f"{len(failed)} of {len(results)} runs failed: {causes} (the others are kept in {out})")


def _check_out(out: Path) -> None:
    """Raises UserError when the folder holds files that are not part of an experiment."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder with --out")
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    others = sorted(names - {"runs", *FILES})
    if others:
        raise UserError(f"{out}: holds {others[0]}, which is not part of an experiment; name another folder with --out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.experiments", description="Tune, export and judge a grid or a list of settings."
    )
    parser.add_argument("file", help="the experiment's TOML: preset, and [grid] or [[runs]]")
    parser.add_argument("--data", required=True, help="the dataset folder that data_gen wrote")
    parser.add_argument("--out", required=True, help="the folder for runs/, results.md, results.json and results.png")
    return parser


if __name__ == "__main__":
    run(main)

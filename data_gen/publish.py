"""A finished dataset folder -> the Hugging Face Hub, or a folder for datasets.load_from_disk.

python -m data_gen.publish artifacts/terminology/dataset --save-to-disk DIR --push OWNER/NAME --private
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_gen.publication import check_finished, publish
from plumbing.errors import UserError, run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.publish", description="Publish a finished dataset folder."
    )
    parser.add_argument("folder", help="what `python -m data_gen TASK --out` made")
    parser.add_argument("--save-to-disk", metavar="DIR", help="write it for datasets.load_from_disk")
    parser.add_argument("--push", metavar="REPO", help="publish it on the Hugging Face Hub as OWNER/NAME")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    args = parser.parse_args()
    if args.private and not args.push:
        raise UserError("--private needs --push OWNER/NAME")
    if not args.save_to_disk and not args.push:
        raise UserError("nothing to do: name a folder with --save-to-disk, or a repository with --push")
    folder = Path(args.folder)
    check_finished(folder)
    publish(folder, args.save_to_disk, args.push, args.private)


if __name__ == "__main__":
    run(main)

"""Dataset folder -> the proof that its splits share nothing.  `python -m data_gen.certify DIR`

Exit code 0 with one line of figures, or 1 with one line that names the rows in which two splits share something.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data_gen.leaks.certificate import check
from data_gen.leaks.certification import certify_folder
from plumbing.errors import run
from plumbing.handover import check_outputs, read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.certify", description="Prove that a dataset's splits share nothing."
    )
    parser.add_argument("folder", help="a finished dataset folder, as `make dataset` writes it")
    parser.add_argument("--json", action="store_true", help="print the certificate in full")
    args = parser.parse_args()
    folder = Path(args.folder)
    check_outputs(folder, read_manifest(folder, "dataset"))
    certificate = certify_folder(folder)
    if args.json:
        print(certificate.to_json(), end="")
    check(certificate)
    if not args.json:
        print(certificate.line())


if __name__ == "__main__":
    run(main)

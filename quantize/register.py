"""Model folder -> a model of a running Ollama.  `python -m quantize.register MODEL_DIR medical-mistral:tiny`"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contract.base import load_base
from contract.contract import load_contract
from contract.errors import UserError, run
from contract.handover import check_outputs, read_manifest
from contract.ollama_address import server_url
from quantize.modelfile import Fields, fields, render
from quantize.ollama_api import Ollama
from quantize.progress import progress

EXAMPLE = "Explain the medical term: Hypertension"


def main() -> None:
    args = _parser().parse_args()
    digest = register(Path(args.model), args.name, Ollama(server_url(args.host)))
    print(f'{args.name} is registered ({digest[:12]}); next: ollama run {args.name} "{EXAMPLE}"')


def register(folder: Path, name: str, ollama: Ollama) -> str:
    """Create the model and prove that the server holds what was sent.  Returns its digest, as /api/tags gives it."""
    manifest = read_manifest(folder, "model")
    check_outputs(folder, manifest)
    gguf = folder / f"model.{manifest['settings']['type']}.gguf"
    sha256 = manifest["outputs"][gguf.name]
    values = fields(load_contract(folder / "task.toml"), load_base(folder / "base.toml"))
    if (folder / "Modelfile").read_text(encoding="utf-8") != render(values, gguf.name):
        raise UserError(
            f"{folder}: its Modelfile is of another version of this project; export it again with python -m quantize"
        )
    upload(ollama, gguf, sha256)
    ollama.create({"model": name, "files": {gguf.name: f"sha256:{sha256}"}, **values})
    found = differences(values, sha256, ollama.show(name))
    if found:
        raise UserError(
            f"{ollama.url}: holds {name} otherwise than it was sent: {'; '.join(found)}; is this Ollama 0.34 or newer?"
        )
    return ollama.digest(name)


def upload(ollama: Ollama, gguf: Path, sha256: str) -> None:
    """Send the weights, unless the server has them."""
    if ollama.has_blob(sha256):
        return
    with progress(gguf.name, gguf.stat().st_size) as advance:

        def body() -> Iterator[bytes]:
            with gguf.open("rb") as file:
                while part := file.read(1 << 20):
                    yield part
                    advance(len(part))

        ollama.upload(sha256, body)


def differences(values: Fields, sha256: str, shown: dict[str, Any]) -> list[str]:
    """What /api/show says otherwise than what was sent, field by field."""
    found = [
        f"{key} is {shown.get(key, '')!r}, sent {values[key]!r}"  # type: ignore[literal-required]
        for key in ("template", "system", "license")
        if shown.get(key, "") != values[key]  # type: ignore[literal-required]
    ]
    sent = {name: value if isinstance(value, list) else [value] for name, value in values["parameters"].items()}
    held = read_parameters(shown.get("parameters", ""))
    for name in sorted(sent.keys() | held.keys()):
        if sent.get(name) != held.get(name):
            found.append(f"{name} is {held.get(name)}, sent {sent.get(name)}")
    # Ollama writes FROM first; a later line that begins so is the system prompt's own.
    weights = next((line for line in shown.get("modelfile", "").splitlines() if line.startswith("FROM ")), "")
    if not weights.endswith(f"sha256-{sha256}"):
        found.append(f"the weights are {weights!r}, sent sha256-{sha256}")
    return found


def read_parameters(text: str) -> dict[str, list[Any]]:
    """/api/show's lines of name and value; a name that stands twice has two values.

    >>> read_parameters('stop    "</s>"\\ntemperature    0')
    {'stop': ['</s>'], 'temperature': [0]}
    """
    values: dict[str, list[Any]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        values.setdefault(name, []).append(json.loads(value))
    return values


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.register", description="Create the model in a running Ollama and check it."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("name", metavar="NAME", help="the model's name there, such as medical-mistral:tiny")
    parser.add_argument("--host", metavar="URL", help="the server (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    return parser


if __name__ == "__main__":
    run(main)

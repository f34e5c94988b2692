"""Model folder -> models of a running Ollama.  `python -m quantize.register MODEL_DIR medical-mistral:tiny`

A folder of several types: the first is registered by that name, each also as its tag, such as medical-mistral:tiny-q8_0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.base import load_base
from contract.contract import load_contract
from models.ollama_address import server_url
from plumbing.errors import UserError, run
from plumbing.handover import Manifest, check_outputs, read_manifest
from plumbing.progress import byte_progress
from quantize.modelfile import Fields, fields, modelfiles
from quantize.ollama_api import Ollama


def main() -> None:
    args = _parser().parse_args()
    folder, ollama = Path(args.model), Ollama(server_url(args.host))
    names = {args.name: args.type} if args.type else tags(args.name, _types(read_manifest(folder, "model")))
    for name, digest in register_all(folder, names, ollama).items():
        print(f"{name} is registered ({digest[:12]})")
    request = load_contract(folder / "task.toml").example or "YOUR REQUEST"
    print(f"next: ollama run {args.name} {json.dumps(request, ensure_ascii=False)}")


def tags(name: str, types: Sequence[str]) -> dict[str, str]:
    """What a folder of these types is registered as, name -> type: the first as `name`, of several each as a tag too.

    >>> tags("medical-mistral:7b", ["q4_k_m"])
    {'medical-mistral:7b': 'q4_k_m'}
    >>> list(tags("medical-mistral:7b", ["q4_k_m", "q8_0"]))
    ['medical-mistral:7b', 'medical-mistral:7b-q4_k_m', 'medical-mistral:7b-q8_0']
    """
    joint = "-" if ":" in name.rpartition("/")[2] else ":"
    several = {f"{name}{joint}{kind}": kind for kind in types} if len(types) > 1 else {}
    return {name: types[0]} | several


def register(folder: Path, name: str, ollama: Ollama) -> str:
    """The folder's first type as `name`; its digest, as /api/tags gives it."""
    return register_all(folder, {name: ""}, ollama)[name]


def register_all(folder: Path, names: Mapping[str, str], ollama: Ollama) -> dict[str, str]:
    """Create the models and prove that the server holds what was sent.

    `names`: name -> type, "" for the folder's first.  Returns name -> digest, as /api/tags gives it.
    """
    manifest = read_manifest(folder, "model")
    check_outputs(folder, manifest)
    card = manifest["settings"].get("card", "")
    values = fields(load_contract(folder / "task.toml"), load_base(folder / "base.toml"), card)
    types = _types(manifest)
    texts = dict(zip(types, modelfiles(values, types).items(), strict=True))
    unknown = [kind for kind in names.values() if kind and kind not in types]
    if unknown:
        raise UserError(f"{folder}: holds no {unknown[0]} (it holds {', '.join(types)}); name one of these with --type")
    chosen = {name: kind or types[0] for name, kind in names.items()}
    for modelfile, text in (texts[kind] for kind in chosen.values()):
        if (folder / modelfile).read_text(encoding="utf-8") != text:
            raise UserError(
                f"{folder}: its {modelfile} is of another version of this project; export it again with python -m quantize"
            )
    for name in chosen:  # before gigabytes are sent, not after
        ollama.check_name(name)
    ggufs = {name: folder / f"model.{kind}.gguf" for name, kind in chosen.items()}
    return {name: _create(gguf, manifest["outputs"][gguf.name], name, values, ollama) for name, gguf in ggufs.items()}


def _types(manifest: Manifest) -> list[str]:
    settings = manifest["settings"]
    return list(settings.get("types") or [settings["type"]])


def _create(gguf: Path, sha256: str, name: str, values: Fields, ollama: Ollama) -> str:
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
    with byte_progress(gguf.name, gguf.stat().st_size) as advance:

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
    parser.add_argument("--type", metavar="TYPE", help="register this one of its types alone, by exactly that name")
    parser.add_argument("--host", metavar="URL", help="the server (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    return parser


if __name__ == "__main__":
    run(main)

"""Model folder -> models of an Ollama.  `python -m quantize.register MODEL_DIR medical-mistral:tiny`

From a folder of several types the first gets that name, and each gets a tag too, such as medical-mistral:tiny-q8_0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.base import load_base
from contract.contract import load_contract
from models.modelfile import shown_parameters
from models.ollama_address import server_url
from models.ollama_server import Server
from plumbing.errors import UserError, run
from plumbing.handover import Manifest, check_outputs, read_manifest
from plumbing.progress import byte_progress
from quantize.modelfile import Fields, fields, modelfiles


def main() -> None:
    args = _parser().parse_args()
    folder, server = Path(args.model), Server(server_url(args.host), timeout=60)  # nothing here generates
    names = {args.name: args.type} if args.type else tags(args.name, _types(read_manifest(folder, "model")))
    for name, digest in register_all(folder, names, server).items():
        print(f"{name} is registered ({digest[:12]})")
    request = load_contract(folder / "task.toml").example or "YOUR REQUEST"
    print(f"next: ollama run {args.name} {json.dumps(request, ensure_ascii=False)}")


def tags(name: str, types: Sequence[str]) -> dict[str, str]:
    """The names that a folder of these types gets -> type: the first is `name`; of several types each is a tag too.

    >>> tags("medical-mistral:7b", ["q4_k_m"])
    {'medical-mistral:7b': 'q4_k_m'}
    >>> list(tags("medical-mistral:7b", ["q4_k_m", "q8_0"]))
    ['medical-mistral:7b', 'medical-mistral:7b-q4_k_m', 'medical-mistral:7b-q8_0']
    """
    joint = "-" if ":" in name.rpartition("/")[2] else ":"
    several = {f"{name}{joint}{kind}": kind for kind in types} if len(types) > 1 else {}
    return {name: types[0]} | several


def register(folder: Path, name: str, server: Server) -> str:
    """Register the folder's first type as `name`.  Returns its digest, as /api/tags gives it."""
    return register_all(folder, {name: ""}, server)[name]


def register_all(folder: Path, names: Mapping[str, str], server: Server) -> dict[str, str]:
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
        raise UserError(
            f"{folder}: does not hold {unknown[0]} (it holds {', '.join(types)}); name one of these with --type"
        )
    chosen = {name: kind or types[0] for name, kind in names.items()}
    for modelfile, text in (texts[kind] for kind in chosen.values()):
        if (folder / modelfile).read_text(encoding="utf-8") != text:
            cause = f"its {modelfile} is from another version of this project"
            raise UserError(f"{folder}: {cause}; export it again with python -m quantize")
    for name in chosen:  # before gigabytes are sent, not after
        server.check_name(name)
    ggufs = {name: folder / f"model.{kind}.gguf" for name, kind in chosen.items()}
    return {name: _create(gguf, manifest["outputs"][gguf.name], name, values, server) for name, gguf in ggufs.items()}


def _types(manifest: Manifest) -> list[str]:
    settings = manifest["settings"]
    return list(settings.get("types") or [settings["type"]])


def _create(gguf: Path, sha256: str, name: str, values: Fields, server: Server) -> str:
    upload(server, gguf, sha256)
    server.create({"model": name, "files": {gguf.name: f"sha256:{sha256}"}, **values})
    found = differences(values, sha256, server.show(name))
    if found:
        cause = f"Ollama at {server.url} does not hold {name} as it was sent: {'; '.join(found)}"
        raise UserError(f"{cause}; is this Ollama 0.34 or newer?")
    digest = server.digest(name)
    if not digest:
        raise UserError(f"Ollama at {server.url} does not list {name} after creating it; look into its log")
    return digest


def upload(server: Server, gguf: Path, sha256: str) -> None:
    """Send the weights, unless the server has them."""
    if server.has_blob(sha256):
        return
    with byte_progress(gguf.name, gguf.stat().st_size) as advance:

        def body() -> Iterator[bytes]:
            with gguf.open("rb") as file:
                while part := file.read(1 << 20):
                    yield part
                    advance(len(part))

        server.upload(sha256, body)


def differences(values: Fields, sha256: str, shown: dict[str, Any]) -> list[str]:
    """Each field in which /api/show differs from what was sent."""
    found = [
        f"{key} is {shown.get(key, '')!r}, sent {values[key]!r}"
        for key in ("template", "system", "license")
        if shown.get(key, "") != values[key]
    ]
    sent = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in values["parameters"].items()}
    held = shown_parameters(shown.get("parameters", ""))
    for name in sorted(sent.keys() | held.keys()):
        if sent.get(name) != held.get(name):
            found.append(f"{name} is {list(held.get(name, ()))}, sent {list(sent.get(name, ()))}")
    # Ollama writes FROM first; a later line that begins so is part of the system prompt.
    weights = next((line for line in shown.get("modelfile", "").splitlines() if line.startswith("FROM ")), "")
    if not weights.endswith(f"sha256-{sha256}"):
        found.append(f"the weights are {weights!r}, sent sha256-{sha256}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize.register", description="Create the model in a running Ollama and check it."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("name", metavar="NAME", help="the model's name there, such as medical-mistral:tiny")
    parser.add_argument("--type", metavar="TYPE", help="register only this one of its types, by exactly that name")
    parser.add_argument("--host", metavar="URL", help="the server (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    return parser


if __name__ == "__main__":
    run(main)

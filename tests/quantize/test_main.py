"""`python -m quantize`: the folder it hands on, and the bad inputs it refuses in one line, leaving nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.base_folder import base_digest
from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest, sha256, write_manifest
from quantize.export import export, gguf_path
from tests.conftest import ROOT, make_small_base

GGUF = "model.q4_k_m.gguf"


@pytest.fixture
def base(small_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_base, tmp_path / "base"))


@pytest.fixture
def adapter(small_adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_adapter, tmp_path / "adapter"))


def command(*arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the stage as a process; `code` is run in it first."""
    start = f"{code}; import runpy; runpy.run_module('quantize', run_name='__main__', alter_sys=True)"
    line = (
        [sys.executable, "-c", start, *map(str, arguments)]
        if code
        else [sys.executable, "-m", "quantize", *map(str, arguments)]
    )
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def left(folder: Path) -> list[str]:
    """What lies beside the target, temporary names included."""
    return sorted(path.name for path in folder.iterdir())


def test_the_model_folder_explains_itself(small_adapter: Path, small_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "model"
    done = command(small_adapter, "--out", out)
    assert done.returncode == 0, done.stderr
    assert (
        f"{out / GGUF}: 20 tensors, 1." in done.stdout
        and f"next: python -m quantize.register {out} NAME" in done.stdout
    )
    assert left(out) == ["Modelfile", "base.toml", "manifest.json", GGUF, "task.toml"] and left(out.parent) == ["model"]
    manifest = read_manifest(out, "model")
    check_outputs(out, manifest)
    assert manifest["inputs"] == {
        "base": base_digest(small_base), "tokenizer": sha256(small_base / "tokenizer.model"),
        "adapter": sha256(small_adapter / "adapter_model.safetensors"),
    }  # fmt: skip
    assert manifest["settings"] == {
        "type": "q4_k_m", "types": ["q4_k_m"], "base_only": False, "base_folder": str(small_base),
    }  # fmt: skip
    assert manifest["counts"] == {"tensors": 20, "blocks": {"q4_k_m": {"Q6_K": 3, "Q4_K": 12, "F32": 5}}}
    assert f"FROM ./{GGUF}\n" in (out / "Modelfile").read_text()
    for name in ("task.toml", "base.toml"):
        assert (out / name).read_bytes() == (small_adapter / name).read_bytes()


def test_the_same_inputs_give_the_same_bytes(small_adapter: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(small_adapter, tmp_path / name)
    assert (tmp_path / "a" / GGUF).read_bytes() == (tmp_path / "b" / GGUF).read_bytes()


def test_several_types_are_made_in_one_pass_each_as_if_alone(
    small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.tensors import Tensor

    read: list[str] = []
    real = Tensor.read
    monkeypatch.setattr(Tensor, "read", lambda self: read.append(self.name) or real(self))
    types = ["q4_k_m", "f16", "q4_k_s", "q8_0"]
    plans = export(small_adapter, tmp_path / "all", ", ".join(types))
    assert [plan.type for plan in plans] == types and len(read) == len(set(read))
    for kind in types:
        export(small_adapter, tmp_path / kind, kind)
        assert gguf_path(tmp_path / "all", kind).read_bytes() == gguf_path(tmp_path / kind, kind).read_bytes()
        own = "Modelfile" if kind == types[0] else f"Modelfile.{kind}"
        assert (tmp_path / "all" / own).read_bytes() == (tmp_path / kind / "Modelfile").read_bytes()
    manifest = read_manifest(tmp_path / "all", "model")
    check_outputs(tmp_path / "all", manifest)  # the sha256 that were taken while writing
    assert (manifest["settings"]["type"], manifest["settings"]["types"]) == ("q4_k_m", types)
    assert list(manifest["counts"]["blocks"]) == types and len(manifest["outputs"]) == 2 * len(types) + 2


def test_a_gguf_is_hashed_while_it_is_written(
    small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plumbing import handover

    hashed: list[str] = []
    monkeypatch.setattr(handover, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    export(small_adapter, tmp_path / "model")
    assert "Modelfile" in hashed and GGUF not in hashed


@pytest.mark.parametrize("types", ["q4", "q4_k_m,q9", "", "q8_0,"])
def test_an_unknown_type_is_refused_with_the_known_ones(small_adapter: Path, tmp_path: Path, types: str) -> None:
    with pytest.raises(UserError, match="--type: unknown type '"):
        export(small_adapter, tmp_path / "model", types)
    assert left(tmp_path) == []


def test_base_only_leaves_the_adapter_out_and_nothing_else(small_adapter: Path, tmp_path: Path) -> None:
    export(small_adapter, tmp_path / "tuned")
    export(small_adapter, tmp_path / "base", base_only=True)
    assert (tmp_path / "tuned" / "Modelfile").read_bytes() == (tmp_path / "base" / "Modelfile").read_bytes()
    assert (tmp_path / "tuned" / GGUF).read_bytes() != (tmp_path / "base" / GGUF).read_bytes()
    manifest = read_manifest(tmp_path / "base", "model")
    assert "adapter" not in manifest["inputs"] and manifest["settings"]["base_only"]


def test_metadata_names_the_model_its_licence_and_how_it_is_tokenised(small_adapter: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    from contract.base import load_base

    export(small_adapter, tmp_path / "model", "f16")
    fields = {
        name: field.contents() for name, field in GGUFReader(tmp_path / "model" / "model.f16.gguf").fields.items()
    }
    expected = {
        "general.architecture": "llama", "general.name": "terminology on tiny", "general.license": "Apache-2.0",
        "general.file_type": 1, "llama.context_length": 1024, "llama.attention.head_count_kv": 2,
        "llama.rope.freq_base": 10000.0, "llama.rope.dimension_count": 64, "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": load_base("tiny").chat_template(),
    }  # fmt: skip
    assert {name: fields[name] for name in expected} == expected


def test_torch_is_never_imported(small_adapter: Path, tmp_path: Path) -> None:
    heavy = "sorted({'torch', 'transformers', 'llama_cpp'} & set(sys.modules))"
    code = f"import atexit, sys; atexit.register(lambda: print('heavy:', {heavy}))"
    done = command(small_adapter, "--out", tmp_path / "model", code=code)
    assert done.returncode == 0 and "heavy: []" in done.stdout, done.stderr


@pytest.mark.parametrize("stage", ["quantize", "quantize.register"])
def test_help_answers_at_once(stage: str) -> None:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        assert (
            subprocess.run(
                [sys.executable, "-m", stage, "--help"], cwd=ROOT, capture_output=True, timeout=60
            ).returncode
            == 0
        )
        times.append(time.perf_counter() - started)
    assert min(times) < 0.5


def rewrite(adapter: Path, **settings: Any) -> None:
    """The adapter's manifest over what is there now, as if it had been trained so."""
    old = read_manifest(adapter, "adapter")
    write_manifest(adapter, "adapter", old["inputs"], old["settings"] | settings, {})


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def poison(adapter: Path, value: float) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in weights if "mlp.up_proj.lora_B" in name)
    weights[name] = np.full_like(weights[name], value)
    save_file(weights, adapter / "adapter_model.safetensors")
    rewrite(adapter)


def poison_norm(adapter: Path, base: Path) -> None:
    """A base that is damaged since before the adapter was trained on it."""
    data = bytearray((base / "model.safetensors").read_bytes())
    data[-2:] = b"\xc0\x7f"  # bfloat16's NaN
    (base / "model.safetensors").write_bytes(data)
    write_manifest(adapter, "adapter", {"base": base_digest(base)}, {"base_folder": str(base)}, {})


BAD_INPUTS: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "a base without tokenizer.model": (
        lambda a, b: (b / "tokenizer.model").unlink(),
        "no tokenizer.model (without its scores",
    ),
    "a base cut short": (
        lambda a, b: (b / "model.safetensors").write_bytes((b / "model.safetensors").read_bytes()[:-10]),
        "bytes long, its header",
    ),
    "a base of other weights": (lambda a, b: make_small_base(b, seed=5), "was trained on another base than"),
    "a base of another width": (
        lambda a, b: make_small_base(b, hidden_size=192),
        "belongs to another base (and 11 more); name its own base with --base DIR",
    ),
    "a base in 4 bits": (
        lambda a, b: change(b / "config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "the base is quantised (bitsandbytes): take the 16-bit one, finetune/bases/tiny; training quantises it itself",
    ),
    "a base of pickles": (
        lambda a, b: (b / "model.safetensors").rename(b / "pytorch_model.bin"),
        "no *.safetensors (the weights): pickles are never read, fetch them as safetensors",
    ),
    "a base of fewer layers than its config says": (
        lambda a, b: change(b / "config.json", num_hidden_layers=3),
        "the base lacks model.layers.2.input_layernorm.weight",
    ),
    "a base of other pieces": (
        lambda a, b: shutil.copyfile(a / "task.toml", b / "tokenizer.model"),
        "not a SentencePiece model",
    ),
    "an adapter whose manifest names no weights": (
        lambda a, b: change(a / "manifest.json", outputs={}),
        "its manifest.json names no adapter_model.safetensors: not a finished adapter",
    ),
    "an adapter changed since": (
        lambda a, b: (a / "adapter_config.json").open("a").write(" "),
        "changed since it was made: adapter_config.json",
    ),
    "no adapter": (lambda a, b: shutil.rmtree(a), "no manifest.json there: not a finished adapter folder"),
    "a dataset for an adapter": (
        lambda a, b: write_manifest(a, "dataset", {}, {}, {}),
        "what the stage 'adapter' makes",
    ),
    "no task": (lambda a, b: (a / "task.toml").unlink(), "task.toml: no such"),
    "weights that are no numbers": (
        lambda a, b: poison(a, np.nan),
        "up_proj.weight: holds values that are not numbers",
    ),
    "a base's norm that is no number": (poison_norm, "model.norm.weight: holds values that are not numbers"),
    "weights beyond float16": (
        lambda a, b: poison(a, 1e30),
        "up_proj.weight: holds values that are not numbers or beyond 65504",
    ),
}


@pytest.mark.parametrize("fault", BAD_INPUTS)
def test_bad_input_is_one_line_and_leaves_nothing(adapter: Path, base: Path, tmp_path: Path, fault: str) -> None:
    rewrite(adapter, base_folder=str(base))
    spoil, told = BAD_INPUTS[fault]
    spoil(adapter, base)
    with pytest.raises(UserError) as error:
        export(adapter, tmp_path / "out" / "model")
    assert told in str(error.value)
    assert not (tmp_path / "out").exists() or left(tmp_path / "out") == []


def test_an_error_is_one_line_with_exit_code_1(small_adapter: Path, tmp_path: Path) -> None:
    done = command(small_adapter, "--out", tmp_path / "model", "--base", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {tmp_path / 'nowhere'}: no such base folder; name a folder with the base's files\n",
    )


def test_the_named_base_is_used_where_the_one_of_training_is_gone(
    adapter: Path, small_base: Path, tmp_path: Path
) -> None:
    rewrite(adapter, base_folder="/no/such/folder")
    export(adapter, tmp_path / "model", base_folder=str(small_base))
    assert read_manifest(tmp_path / "model", "model")["settings"]["base_folder"] == str(small_base)


def test_what_another_stage_made_is_never_replaced(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds what the stage 'adapter' made; name another folder"):
        export(adapter, adapter)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        export(adapter, tmp_path / "mine")
    assert left(tmp_path / "mine") == ["thesis.txt"]

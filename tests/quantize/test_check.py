"""`python -m quantize.check`: a right export passes, and each way of getting it wrong fails; real GGUFs, real llama.cpp."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plumbing.errors import UserError
from plumbing.handover import read_manifest, sha256, write_manifest
from quantize.check import Source, check, open_source, read_pairs
from quantize.check_figures import EXPORTED, QUANTISED, Compared, Seen, compare
from quantize.export import export
from quantize.recipe import RECIPES
from tests.conftest import ROOT, make_small_adapter, make_small_base

Edit = Callable[[Path, Path], None]  # adapter folder, base folder: copies, to be spoilt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An adapter and its base, in float32 and with weights large enough that attention sees positions.

    Not in bfloat16: what random weights say is full of near ties, which the rounding of a merge would turn.
    """
    folder = tmp_path_factory.mktemp("loud")
    base = make_small_base(folder / "base", initializer_range=0.05, max_position_embeddings=2048)
    weights(base / "model.safetensors", lambda tensors: tensors.update({n: t.float() for n, t in tensors.items()}))
    adapter = make_small_adapter(base, folder / "adapter", lora_alpha=32)
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": "its/repo"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    claim(adapter, base)
    return adapter, base


def spoilt(made: tuple[Path, Path], out: Path, edit: Edit, kind: str = "f16") -> Path:
    """A model folder exported from spoilt copies that says it was made from the right ones."""
    adapter, base = (
        Path(shutil.copytree(folder, out.parent / f"{out.name}-{name}"))
        for folder, name in zip(made, ("adapter", "base"), strict=True)
    )
    edit(adapter, base)
    claim(adapter, base)
    export(adapter, out, kind, str(base))
    right = read_manifest(made[0], "adapter")
    manifest = read_manifest(out, "model")
    inputs = {"base": right["inputs"]["base"], "adapter": right["outputs"]["adapter_model.safetensors"]}
    settings = manifest["settings"] | {"base_folder": str(made[1])}
    write_manifest(out, "model", manifest["inputs"] | inputs, settings, manifest["counts"])
    return out


def claim(adapter: Path, base: Path) -> None:
    """The adapter's manifest over what is there now, as if it had been trained so."""
    from models.base_folder import base_digest

    write_manifest(adapter, "adapter", {"base": base_digest(base)}, {"base_folder": str(base)}, {})


def source_of(folder: Path, made: tuple[Path, Path]) -> Source:
    return open_source(folder, str(made[0]), str(made[1]))


def checked(folder: Path, made: tuple[Path, Path]) -> list[Compared]:
    source = source_of(folder, made)
    return check(source, read_pairs(source, None))


def same(adapter: Path, base: Path) -> None:
    """Nothing is spoilt."""


def weights(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Rewrite a safetensors file of any float type."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def no_lora(adapter: Path, base: Path) -> None:
    weights(adapter / "adapter_model.safetensors", lambda tensors: [t.zero_() for t in tensors.values()])


def other_alpha(adapter: Path, base: Path) -> None:
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"lora_alpha": 2 * config["lora_alpha"]}))


def swapped(adapter: Path, base: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if "gate_proj" in name]:
            other = name.replace("gate_proj", "up_proj")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    weights(base / "model.safetensors", change)
    weights(adapter / "adapter_model.safetensors", change)


def other_rope(adapter: Path, base: Path) -> None:
    path = base / "config.json"
    config = json.loads(path.read_text())
    config.pop("rope_parameters", None)
    path.write_text(json.dumps(config | {"rope_theta": 1e6}))


def unpermuted(monkeypatch: pytest.MonkeyPatch) -> None:
    from quantize.layout import Placed

    monkeypatch.setattr(Placed, "arrange", lambda self, weight: weight)


def scoreless(monkeypatch: pytest.MonkeyPatch) -> None:
    import gguf

    real = gguf.GGUFWriter.add_token_scores
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_scores", lambda self, scores: real(self, [0.0] * len(scores)))


def test_a_right_export_passes_and_says_so_in_figures(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(made[0], folder, "q8_0")
    arguments = [folder, "--adapter", made[0], "--base", made[1]]
    done = subprocess.run(
        [sys.executable, "-m", "quantize.check", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "model.f16.gguf\ntorch on 16bit\nmodel.q8_0.gguf\n"
    assert done.stdout.count("  pass\n") == 2 and "FAIL" not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["check.json", "model"]  # the f16 file was temporary
    text = (tmp_path / "check.json").read_text()
    told = json.loads(text)
    assert told["verdict"] == "faithful" and str(tmp_path) not in text and str(made[1]) not in text
    assert told["weights"] == {"model.q8_0.gguf": sha256(folder / "model.q8_0.gguf")}
    exported, quantised = told["compared"]
    assert exported["reference"] == "torch" and exported["kl_mean"] < 1e-4 and exported["other_ids"] == []
    assert (quantised["measured"], quantised["reference"]) == ("model.q8_0.gguf", "model.f16.gguf")
    assert exported["kl_mean"] < quantised["kl_mean"] < 0.02 and quantised["tokens"] > 100


@pytest.mark.parametrize("edit", [no_lora, other_alpha, swapped, other_rope], ids=lambda edit: edit.__name__)
def test_what_was_exported_wrongly_fails(made: tuple[Path, Path], tmp_path: Path, edit: Edit) -> None:
    (found,) = checked(spoilt(made, tmp_path / "model", edit), made)
    assert found.kl_mean > 5 * EXPORTED.kl_mean and found.other_ids == [] and found.first is not None
    assert any("mean KL" in fault for fault in found.faults)


def test_rows_of_q_and_k_left_as_hugging_face_has_them_fail(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    unpermuted(monkeypatch)
    (found,) = checked(spoilt(made, tmp_path / "model", same), made)
    assert found.kl_mean > 5 * EXPORTED.kl_mean and any("mean KL" in fault for fault in found.faults)


def test_a_tokenizer_without_scores_fails_by_its_token_ids_alone(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    scoreless(monkeypatch)
    (found,) = checked(spoilt(made, tmp_path / "model", same), made)
    assert len(found.other_ids) > 8 and len(found.faults) == 1 and "other token ids" in found.faults[0]
    assert found.kl_mean < EXPORTED.kl_mean  # the weights are right, and were fed the right ids


@pytest.mark.parametrize("edit", [same, no_lora, swapped], ids=lambda edit: edit.__name__)
def test_a_wrong_file_of_every_type_fails_against_a_right_f16(
    made: tuple[Path, Path], tmp_path: Path, edit: Edit
) -> None:
    """No bound is so loose as to let it pass, nor so tight that a right one fails."""
    exported, *quantised = checked(spoilt(made, tmp_path / "model", edit, ",".join(QUANTISED)), made)
    assert exported.faults == [] and [one.measured for one in quantised] == [
        f"model.{kind}.gguf" for kind in sorted(QUANTISED)
    ]
    failed = [one.measured for one in quantised if any("mean KL" in fault for fault in one.faults)]
    assert failed == ([] if edit is same else [one.measured for one in quantised])


def test_a_missed_bound_is_exit_code_2_with_its_reason(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder = spoilt(made, tmp_path / "model", no_lora)
    arguments = [folder, "--adapter", made[0], "--base", made[1], "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "quantize.check", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    assert done.returncode == 2 and told == json.loads((tmp_path / "check.json").read_text())
    assert told["verdict"] == "unfaithful" and "LoRA left out" in told["compared"][0]["bound"]["why"]


def test_what_cannot_be_compared_is_refused_in_one_line(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    export(made[0], folder, "f16")
    other = make_small_adapter(made[1], tmp_path / "other", seed=2)
    elsewhere = make_small_base(tmp_path / "elsewhere", seed=3)
    for arguments, said in [
        ((folder, str(other), str(made[1])), "not the adapter that"),
        ((folder, str(made[0]), str(elsewhere)), "not the base that"),
        ((folder, None, str(made[1])), "no such adapter folder"),
        ((made[0], None, None), "wanted what the stage 'model' makes"),
    ]:
        with pytest.raises(UserError, match=said):
            open_source(*arguments)
    (folder / "model.f16.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"changed since it was made: model\.f16\.gguf"):
        source_of(folder, made)


def test_no_number_fails_and_every_type_has_a_bound() -> None:
    rows = np.zeros((3, 4), np.float32)
    right, wrong = (Seen(name, [[1]], [logits], [[1, 2]]) for name, logits in (("a", rows), ("b", rows * np.nan)))
    assert compare(right, right, EXPORTED).faults == []
    assert compare(wrong, right, EXPORTED).faults[0] == "mean KL nan is above 0.001"
    tie = np.tile(np.float32([1e-3, 0, 0, 0]), (3, 1))  # of a model that knows nothing: near to equal, and others ahead
    assert compare(Seen("t", [[1]], [tie], [[1, 2]]), Seen("u", [[1]], [tie[:, ::-1]], [[1, 2]]), EXPORTED).faults == []
    told = compare(Seen("t", [[1]], [30 * tie], [[1, 2]]), Seen("u", [[1]], [30 * tie[:, ::-1]], [[1, 2]]), EXPORTED)
    assert told.kl_mean < EXPORTED.kl_mean and told.faults == ["top-1 0.0 % is below 99 %"]
    ended = Seen("c", [[1]], [rows], [[1]])
    assert compare(ended, right, EXPORTED).first == {"prompt": 0, "position": 1, "reference": 2, "measured": -1}
    with pytest.raises(UserError, match="4 in the base's"):
        compare(Seen("d", [[1]], [np.zeros((3, 5))], [[1]]), right, EXPORTED)
    assert RECIPES.keys() - {"f16"} == QUANTISED.keys()

"""A right export passes, and each way of exporting wrongly misses a bound; real GGUFs, real llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.contract import load_contract
from eval.attribute.agreement import EXPORTED, QUANTISED, Agreement, Seen, compare
from eval.attribute.deployment import read_deployment, with_f16
from eval.attribute.logits import agreements, answer_pairs, forced_rows
from models.answers import Request
from models.embedded import open_gguf
from models.torch_model import pieces
from plumbing.errors import UserError
from plumbing.handover import read_manifest, write_manifest
from quantize.export import export
from quantize.recipe import RECIPES
from tests.conftest import make_small_adapter, make_small_base
from tests.eval.attribute.test_table import example

EXAMPLES = [example(str(n), concept) for n, concept in enumerate(("uremia", "hypertension", "edema", "anemia"))]
Edit = Callable[[Path, Path], None]  # adapter folder, base folder: copies, to be spoilt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_loud(tmp_path_factory.mktemp("loud"))


def make_loud(folder: Path) -> tuple[Path, Path]:
    """An adapter and its base, in float32 and with weights large enough that attention sees positions.

    Not in bfloat16: what random weights say is full of near ties, which the rounding of a merge would turn.
    """
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
    write_manifest(out, "model", manifest["inputs"] | inputs, manifest["settings"], manifest["counts"])
    return out


def claim(adapter: Path, base: Path) -> None:
    """The adapter's manifest over what is there now, as if it had been trained so."""
    from models.base_folder import base_digest

    write_manifest(adapter, "adapter", {"base": base_digest(base)}, {"base_folder": str(base)}, {})


def checked(folder: Path, made: tuple[Path, Path]) -> list[Agreement]:
    deployment = read_deployment(folder, load_contract("terminology"), str(made[0]), str(made[1]))
    with with_f16(deployment) as complete:
        found, left_out = agreements(complete, EXAMPLES)
    assert left_out == {}
    return found


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


def test_a_right_export_passes(made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    export(made[0], folder, "q8_0")
    exported, quantised = checked(folder, made)
    assert capsys.readouterr().err == "exporting model.f16.gguf\nmodel.f16.gguf\ntorch\nmodel.q8_0.gguf\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # the f16 file was temporary
    assert exported.reference == "torch" and exported.kl_mean < 1e-4 and exported.other_ids == exported.faults == []
    assert (quantised.measured, quantised.reference) == ("model.q8_0.gguf", "model.f16.gguf")
    assert exported.kl_mean < quantised.kl_mean < QUANTISED["q8_0"].kl_mean and quantised.tokens > 100
    assert exported.kl_mean < exported.kl_99 < exported.kl_max


@pytest.mark.parametrize("edit", [no_lora, other_alpha, swapped, other_rope], ids=lambda edit: edit.__name__)
def test_what_was_exported_wrongly_fails(made: tuple[Path, Path], tmp_path: Path, edit: Edit) -> None:
    (found,) = checked(spoilt(made, tmp_path / "model", edit), made)
    assert found.kl_mean > 5 * EXPORTED.kl_mean and found.other_ids == []
    assert any("mean KL" in fault for fault in found.faults)


def test_rows_of_q_and_k_left_as_hugging_face_has_them_fail(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    unpermuted(monkeypatch)
    (found,) = checked(spoilt(made, tmp_path / "model", same), made)
    assert found.kl_mean > 5 * EXPORTED.kl_mean and any("mean KL" in fault for fault in found.faults)


def test_a_tokenizer_without_scores_fails_by_its_token_ids_alone(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    scoreless(monkeypatch)
    (found,) = checked(spoilt(made, tmp_path / "model", same), made)
    assert len(found.other_ids) > 6 and len(found.faults) == 1 and "other token ids" in found.faults[0]
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


def test_what_cannot_be_compared_is_refused_in_one_line(made: tuple[Path, Path], tmp_path: Path) -> None:
    folder, terms = tmp_path / "model", load_contract("terminology")
    export(made[0], folder, "q8_0")
    other = make_small_adapter(made[1], tmp_path / "other", seed=2)
    elsewhere = make_small_base(tmp_path / "elsewhere", seed=3)
    for arguments, words in [
        ((folder, terms, str(other), str(made[1])), "not the adapter that"),
        ((folder, terms, str(made[0]), str(elsewhere)), "not the base that"),
        ((folder, terms, str(tmp_path / "none"), None), "no such adapter folder"),
        ((made[0], terms, None, None), "expected what the stage 'model' makes"),
    ]:
        with pytest.raises(UserError, match=words):
            read_deployment(*arguments)
    with (folder / "model.q8_0.gguf").open("ab") as file:
        file.write(b"\0")
    deployment = read_deployment(folder, terms, str(made[0]), str(made[1]))
    with pytest.raises(UserError, match="not the file that was exported"), with_f16(deployment) as complete:
        agreements(complete, EXAMPLES)


def test_another_vocabulary_ends_the_comparison(made: tuple[Path, Path], tmp_path: Path) -> None:
    """It is a wrong export, and must not count as "not measured"."""
    folder, name = tmp_path / "model", "model.q8_0.gguf"
    export(made[0], folder, "q8_0")
    wider = make_small_base(tmp_path / "wider", vocab_size=1280)
    export(make_small_adapter(wider, tmp_path / "other"), tmp_path / "foreign", "q8_0")
    shutil.copyfile(tmp_path / "foreign" / name, folder / name)
    manifest = read_manifest(folder, "model")
    write_manifest(folder, "model", manifest["inputs"], manifest["settings"], manifest["counts"])
    with pytest.raises(UserError, match="1280 tokens in its vocabulary, 1024 in that of"):
        checked(folder, made)


def test_without_its_adapter_no_f16_file_is_exported(made: tuple[Path, Path], tmp_path: Path) -> None:
    export(made[0], tmp_path / "model", "q8_0")
    make_small_adapter(made[1], tmp_path / "adapter", seed=2)
    with with_f16(read_deployment(tmp_path / "model", load_contract("terminology"))) as complete:
        found, left_out = agreements(complete, EXAMPLES)
    assert found == [] and all("not the adapter that" in reason for reason in left_out.values()) and len(left_out) == 2


def test_an_untuned_model_is_compared_with_the_base(made: tuple[Path, Path], tmp_path: Path) -> None:
    export(made[0], tmp_path / "model", "q8_0,f16", base_only=True)
    shutil.copytree(made[0], tmp_path / "adapter")
    deployment = read_deployment(tmp_path / "model", load_contract("terminology"), base_folder=str(made[1]))
    found, left_out = agreements(deployment, EXAMPLES)
    assert left_out == {} and [one.reference for one in found] == ["torch", "model.f16.gguf"] and found[0].faults == []


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_an_adapter_trained_in_4_bits_is_compared_on_both_bases(small_base: Path, tmp_path: Path, engine: str) -> None:
    adapter, folder = make_small_adapter(small_base, tmp_path / "adapter"), tmp_path / "model"
    old = read_manifest(adapter, "adapter")
    write_manifest(adapter, "adapter", old["inputs"], old["settings"] | {"load_in_4bit": True, "engine": engine}, {})
    export(adapter, folder, "q8_0", onto="nf4")
    exported, bases, quantised = checked(folder, (adapter, small_base))
    assert (bases.measured, bases.reference, bases.faults) == ("torch on 16bit", "torch on nf4", [])
    assert (exported.reference, exported.faults) == ("torch on nf4", [])
    assert bases.kl_mean > 10 * exported.kl_mean  # the choice of base moves far more than the export
    assert quantised.reference == "model.f16.gguf", "the f16 file was exported onto the same base"
    # Compared with the 16-bit base, the same weights miss the bound: so much does the base matter.
    export(adapter, folder, "f16", onto="nf4")
    manifest = read_manifest(folder, "model")
    (folder / "manifest.json").write_text(json.dumps(manifest | {"settings": manifest["settings"] | {"onto": "16bit"}}))
    assert checked(folder, (adapter, small_base))[0].faults != []


def test_a_row_is_the_served_prompt_and_the_expected_answer(made: tuple[Path, Path], tmp_path: Path) -> None:
    export(made[0], tmp_path / "model", "f16")
    deployment = read_deployment(tmp_path / "model", load_contract("terminology"), str(made[0]), str(made[1]))
    pairs = answer_pairs(deployment, EXAMPLES)
    rows, left_out = forced_rows(deployment, pairs)
    ids, start = rows[0]
    with open_gguf(deployment.f16) as backend:
        turns = ({"role": "user", "content": EXAMPLES[0].request},)
        assert start == backend.ask(Request("a", turns, {"num_predict": 1})).prompt_tokens
    piece = pieces(made[1])
    assert b"".join(map(piece, ids[start:])).decode() == " " + EXAMPLES[0].response
    assert (ids[0], ids[-1], len(rows), left_out) == (1, 2, len(EXAMPLES), 0)
    without = replace(deployment, missing={"torch": "not installed"})
    assert forced_rows(without, pairs) == (rows, 0), "the GGUF's own tokenizer"
    lengths = sorted(len(ids) for ids, _ in rows)
    narrow = replace(deployment, options=deployment.options | {"num_ctx": lengths[-1] - 1})
    assert forced_rows(narrow, pairs)[1] == lengths.count(lengths[-1])
    with pytest.raises(UserError, match="no expected answer fits num_ctx 9 with its prompt"):
        forced_rows(replace(deployment, options=deployment.options | {"num_ctx": 9}), pairs)
    with pytest.raises(UserError, match="a token spans the end of the prompt"):
        forced_rows(deployment, [("What is hyperten", "sion?")])


def seen(name: str, logits: np.ndarray) -> Seen:
    return Seen(name, [[1]], [logits])


def test_no_number_fails_and_every_type_has_a_bound() -> None:
    rows = np.zeros((3, 4), np.float32)
    right, wrong = seen("a", rows), seen("b", rows * np.nan)
    assert compare(right, right, EXPORTED).faults == []
    assert compare(wrong, right, EXPORTED).faults[0] == "mean KL nan is above 0.001"
    tie = np.tile(np.float32([1e-3, 0, 0, 0]), (3, 1))  # of a model that knows nothing: nearly equal, others ahead
    assert compare(seen("t", tie), seen("u", tie[:, ::-1]), EXPORTED).faults == []
    far = compare(seen("t", 30 * tie), seen("u", 30 * tie[:, ::-1]), EXPORTED)
    assert far.kl_mean < EXPORTED.kl_mean and far.faults == ["top-1 0.0 % is below 99 %"]
    assert "bound missed: top-1 0.0 % is below 99 % (the f16 file holds the merged weights" in str(far)
    other = compare(Seen("t", [[1], [2]], [rows]), Seen("u", [[1], [3]], [rows]), EXPORTED)
    assert other.other_ids == [1] and other.faults == ["1 of 2 texts have other token ids"]
    with pytest.raises(UserError, match="5 tokens in its vocabulary, 4 in that of a"):
        compare(seen("d", np.zeros((3, 5))), right, EXPORTED)
    assert RECIPES.keys() - {"f16"} == QUANTISED.keys()

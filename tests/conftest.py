"""The real parts that tests use: a live Ollama, a small base with random weights, a LoRA adapter on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.base import load_base
from finetune.cpu import prepare_cpu
from finetune.tiny_base import tokenizer_config
from models.base_folder import base_digest
from plumbing.handover import write_manifest

ROOT = Path(__file__).parent.parent
prepare_cpu()  # tests and the processes they start import torch later


@pytest.fixture(scope="session")
def ollama() -> Iterator[str]:
    """The URL of a real Ollama: in CI (REQUIRE_OLLAMA=1) the one at OLLAMA_HOST, otherwise one started for this test run.

    Without an Ollama on this machine the test is skipped, and fails where REQUIRE_OLLAMA=1.
    """
    if os.environ.get("REQUIRE_OLLAMA") == "1" and os.environ.get("OLLAMA_HOST"):
        url = f"http://{os.environ['OLLAMA_HOST'].removeprefix('http://')}"
        httpx.get(url, timeout=10).raise_for_status()
        yield url
        return
    binary = _ollama_binary()
    if binary is None:
        if os.environ.get("REQUIRE_OLLAMA") == "1":
            pytest.fail("REQUIRE_OLLAMA=1 and no ollama here: run scripts/install_ollama.sh")
        pytest.skip("no ollama on this machine (scripts/install_ollama.sh builds one)")
    with running_ollama(binary) as url:
        yield url


def _ollama_binary() -> str | None:
    found = os.environ.get("OLLAMA_BINARY") or shutil.which("ollama")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "medical-mistral"
    built = sorted(cache.glob("ollama-*/complete"))
    return found or (str(built[-1].parent / "bin" / "ollama") if built else None)


class running_ollama:
    """`with running_ollama(binary) as url`: a server on a free port; extra environment by keyword."""

    def __init__(self, binary: str, **environment: str) -> None:
        self.binary, self.environment = binary, environment

    def __enter__(self) -> str:
        import tempfile

        self.models = tempfile.mkdtemp(prefix="ollama-models-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        environment = (
            os.environ | {"OLLAMA_HOST": host, "OLLAMA_MODELS": self.models, "OLLAMA_NO_CLOUD": "1"} | self.environment
        )
        self.log = open(Path(self.models) / "server.log", "w")
        self.process = subprocess.Popen([self.binary, "serve"], env=environment, stdout=self.log, stderr=self.log)
        url = f"http://{host}"
        for _ in range(300):
            try:
                if httpx.get(url, timeout=2).status_code == 200:
                    return url
            except httpx.TransportError:
                time.sleep(0.1)
        raise RuntimeError(f"ollama did not start: {Path(self.log.name).read_text()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()
        shutil.rmtree(self.models, ignore_errors=True)


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base folder of Mistral architecture with random weights (about 1 M parameters) and its own tokenizer."""
    return make_small_base(tmp_path_factory.mktemp("small_base"))


def make_small_base(folder: Path, seed: int = 0, family: str = "Mistral", **shape: object) -> Path:
    """Write a random base: hidden 256, ffn 512, 2 layers, 4 heads of which 2 key/value, unless `shape` says otherwise."""
    import torch
    import transformers

    vocabulary = make_tokenizer(folder)
    settings = {
        "vocab_size": vocabulary, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    } | ({"sliding_window": None} if family == "Mistral" else {}) | shape  # fmt: skip
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path, size: int = 1024) -> int:
    """A SentencePiece model of the shipped facts' text, as Mistral v0.3 builds its own; returns its number of pieces."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    facts = [
        json.loads(line)
        for path in sorted((ROOT / "data_gen/facts/terminology").glob("*.jsonl"))
        for line in path.open()
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([fact["mechanism"] for fact in facts]),
        model_prefix=str(folder / "tokenizer"), vocab_size=size, model_type="bpe", byte_fallback=True,
        control_symbols=["[INST]", "[/INST]"], normalization_rule_name="identity", split_digits=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config()))
    return size


@pytest.fixture(scope="session")
def small_adapter(small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter folder on `small_base`, as `python -m finetune` hands it on; its LoRA weights are random, not zero."""
    return make_small_adapter(small_base, tmp_path_factory.mktemp("adapter") / "adapter")


def make_small_adapter(base_folder: Path, folder: Path, seed: int = 1, **lora: object) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.bfloat16)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    peft_model = get_peft_model(
        model, LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": targets, "task_type": "CAUSAL_LM"} | lora)
    )
    torch.manual_seed(seed)
    for name, weight in peft_model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight.data, std=0.05)
    peft_model.save_pretrained(folder)
    shutil.copyfile(ROOT / "contract/tasks/terminology.toml", folder / "task.toml")
    shutil.copyfile(ROOT / "contract/bases/tiny.toml", folder / "base.toml")
    settings = {"base_folder": str(base_folder), "preset": "test"}
    write_manifest(folder, "adapter", {"base": base_digest(base_folder)}, settings, {}, started=time.monotonic())
    assert load_base(folder / "base.toml").name == "tiny"
    return folder

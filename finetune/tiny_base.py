"""NIH text -> the embedded `tiny` base (4.6 M parameters), trained on one CUDA GPU in 3 minutes.

    python -m finetune.tiny_base --data artifacts/terminology/dataset --out finetune/bases/tiny [--minutes 2]

The dataset is read for its concepts' names alone: nothing about them may be in the base's text.  Only a maintainer runs
this; everybody else tunes the base that is shipped.

The text is small (53 thousand sentences, seen some tens of times), and a base that knows it by heart loses the form as
soon as a LoRA brings other facts.  Strong weight decay and wrong tokens in the input keep it from learning by heart;
documents of mixed sources (tiny_text.py) teach the form separately from the content; and the weights are trained
under the noise of a 4-bit quantisation (Fan et al. 2020, "Training with Quantization Noise"), which a model this small feels most.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.base import load_base
from finetune.tiny_text import NIH_TEXT, documents, read_articles
from plumbing.errors import UserError, run
from plumbing.handover import new_folder, sha256, write_manifest

if TYPE_CHECKING:
    import torch

SPECIAL = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
SHAPE: dict[str, Any] = {  # widths are multiples of 256, or q4_k_m falls back to other types
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "sliding_window": None, "tie_word_embeddings": True,
    "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LENGTH, BATCH = 640, 204  # tokens a sequence, sequences a step: 130,560 tokens
DOCUMENTS = 500_000  # about 76 M tokens
MUON_LR, ADAM_LR = 0.02, 3e-3
WEIGHT_DECAY = 0.5  # of the matrices
WRONG_TOKENS = 0.15  # share of the input tokens, replaced at random
PROCESSES = 16


def main() -> None:
    args = _parser().parse_args()
    import torch

    if not torch.cuda.is_available():
        raise UserError("training the tiny base needs a CUDA GPU; the shipped one is in finetune/bases/tiny")
    started, data, out = time.monotonic(), Path(args.data), Path(args.out)
    held_out, known = concept_names(data)
    with new_folder(out) as folder:
        articles = read_articles(held_out, known)
        train_tokenizer(folder, articles, args.seed)
        tokens = tokenize(folder, held_out, known, args.seed)
        print(f"{len(articles)} articles, {len(tokens):,} tokens, {time.monotonic() - started:.0f} s", flush=True)
        model = train(tokens, args.minutes * 60, args.seed)
        save(model, folder)
        shutil.copyfile(data / "concepts.json", folder / "concepts.json")  # what the base must not know, for the record
        inputs = {NIH_TEXT.name: sha256(NIH_TEXT), "concepts.json": sha256(data / "concepts.json")}
        settings = {"seed": args.seed, "minutes": args.minutes, "shape": SHAPE, "muon_lr": MUON_LR, "adam_lr": ADAM_LR}
        counts = {"articles": len(articles), "documents": DOCUMENTS, "tokens": len(tokens)}
        counts |= {"parameters": model.num_parameters()}
        write_manifest(folder, "base", inputs, settings, counts, ("torch", "transformers"), started)


def concept_names(data: Path) -> tuple[set[str], set[str]]:
    """The names of the dataset's held-out concepts, and those of all its concepts."""
    try:
        splits = json.loads((data / "concepts.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{data}: no concepts.json; `make dataset` writes it") from None
    names = {split: {name for concept in splits[split] for name in concept["names"]} for split in splits}
    return names["validation"] | names["test"], set().union(*names.values())


def train_tokenizer(folder: Path, articles: list[Any], seed: int) -> None:
    """A SentencePiece BPE built as Mistral v0.3's: byte fallback, control symbols, no normalisation, single digits."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    lines = documents(articles, load_base("tiny"), 40_000, seed + 1)
    plain = (part for line in lines for part in re.split(r"\[/?INST\]|\n", line.replace("</s>", "")))
    model = io.BytesIO()  # a file's path would be kept in the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(part for part in plain if part.strip()), model_writer=model,
        vocab_size=SHAPE["vocab_size"], model_type="bpe", byte_fallback=True, control_symbols=["[INST]", "[/INST]"],
        normalization_rule_name="identity", split_digits=True, add_dummy_prefix=False, remove_extra_whitespaces=False,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(), indent=2) + "\n", encoding="utf-8")


def tokenizer_config() -> dict[str, Any]:
    plain = {"special": True} | dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    added = {str(number): {"content": text, **plain} for number, text in enumerate(SPECIAL)}
    return {
        "tokenizer_class": "LlamaTokenizer", "legacy": False, "add_prefix_space": False, "add_bos_token": True,
        "add_eos_token": False, "clean_up_tokenization_spaces": False, "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "pad_token": "<unk>", "added_tokens_decoder": added, "chat_template": load_base("tiny").chat_template(),
    }  # fmt: skip


def tokenize(folder: Path, held_out: set[str], known: set[str], seed: int) -> torch.Tensor:
    """All documents as one row of token ids (int16), each document beginning with the begin-of-sequence token."""
    import multiprocessing

    import numpy as np
    import torch

    share = DOCUMENTS // PROCESSES
    jobs = [(str(folder), held_out, known, seed + 100 + n, share) for n in range(PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        return torch.from_numpy(np.concatenate(pool.starmap(_tokenize_share, jobs)))


def _tokenize_share(folder: str, held_out: set[str], known: set[str], seed: int, count: int) -> Any:
    import numpy as np
    from transformers import LlamaTokenizer

    tokenizer = LlamaTokenizer.from_pretrained(folder, legacy=False)
    texts = list(documents(read_articles(held_out, known), load_base("tiny"), count, seed))
    return np.concatenate([np.asarray(ids, dtype=np.int16) for ids in tokenizer(texts)["input_ids"]])


def train(tokens: torch.Tensor, seconds: float, seed: int) -> Any:
    """A model trained for `seconds`: Muon for the matrices, AdamW for the rest, the rate falling over the last half."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    model = MistralForCausalLM(MistralConfig(**SHAPE, attn_implementation="sdpa")).cuda()
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON_LR, momentum=0.95, weight_decay=WEIGHT_DECAY),
        torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH).cuda()
    _add_noise(model)
    step_loss = torch.compile(_loss)
    started, step, share = time.monotonic(), 0, 0.0
    order = torch.randperm(len(rows), device="cuda")
    while share < 1:
        start = step * BATCH % (len(rows) - BATCH)
        batch = rows[order[start : start + BATCH]].long()
        loss = step_loss(model, batch)
        loss.backward()
        for optimizer, rate in zip(optimizers, (MUON_LR, ADAM_LR), strict=True):
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 50, 2 * (1 - share) + 0.01)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
        step += 1
        if step % 10 == 0:
            torch.cuda.synchronize()
            share = (time.monotonic() - started) / seconds
    _remove_noise(model)
    return model


def _loss(model: Any, batch: torch.Tensor) -> torch.Tensor:
    import torch

    given = batch[:, :-1]
    wrong = torch.rand(given.shape, device=given.device) < WRONG_TOKENS
    given = torch.where(wrong & (given > 4), torch.randint_like(given, 5, SHAPE["vocab_size"]), given)
    with torch.autocast("cuda", torch.bfloat16):
        logits = model(input_ids=given, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


def _add_noise(model: Any) -> None:
    """From now on each matrix is seen through the rounding error of 4 bits a block of 32, drawn again at each step."""
    import torch

    class Rounded(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            blocks = weight.detach().view(-1, 32)
            step = (blocks.amax(1, keepdim=True) - blocks.amin(1, keepdim=True)) / 15
            return weight + ((torch.rand_like(blocks) - 0.5) * step).view_as(weight)

    for layer in _linear_layers(model):
        torch.nn.utils.parametrize.register_parametrization(layer, "weight", Rounded())


def _remove_noise(model: Any) -> None:
    import torch

    for layer in _linear_layers(model):
        torch.nn.utils.parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def _linear_layers(model: Any) -> list[Any]:
    import torch

    return [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]


def save(model: Any, folder: Path) -> None:
    """The weights in bf16 with config, tokenizer and the source's attribution."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("ATTRIBUTION.md", "LICENSE-CC-BY-4.0.txt"):
        shutil.copyfile(NIH_TEXT.parent / name, folder / name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.tiny_base", description="Train the embedded base on a GPU."
    )
    parser.add_argument("--data", required=True, help="dataset folder: its concepts are kept out of the text")
    parser.add_argument("--out", required=True, help="the base folder to write")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time (default 2, on one H200)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    run(main)

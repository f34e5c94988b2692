"""How much GPU memory a way of training takes at its peak: from the base's shape, the LoRA's and the longest rows.

A sum of what must be held (weights, LoRA, its gradients, optimizer, activations) with two figures an engine fitted on one
H200 at the shape of Mistral-7B (Unsloth 2026.10.9, PEFT 0.21, 2026-11-29: 29 settings from 512 to 16,384 tokens a step);
for a base of a few million parameters `workspace` is a tenth of a GiB too much.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from plumbing.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """What of a base's shape memory depends on."""

    layers: int
    hidden: int
    feed_forward: int
    queries: int  # features of all query heads together
    keys: int  # of all key heads; as many of all value heads
    vocabulary: int
    tied: bool

    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (inputs, outputs)."""
        attention = {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
        }
        up = (self.hidden, self.feed_forward)
        return attention | {"gate_proj": up, "up_proj": up, "down_proj": up[::-1]}

    def tensors(self) -> dict[str, tuple[int, int]]:
        """The base's matrices, named as Llama and its kin name them -> (outputs, inputs)."""
        named = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            for name, (inputs, outputs) in self.linear().items():
                part = "self_attn" if name.startswith(("q_", "k_", "v_", "o_")) else "mlp"
                named[f"model.layers.{layer}.{part}.{name}.weight"] = (outputs, inputs)
        return named

    def block_parameters(self) -> int:
        """Parameters in the linear layers of all blocks: what a 4-bit base packs."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear().values())

    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, modules: Collection[str]) -> int:
        """Parameters of a LoRA of that rank on the modules that the base has."""
        return self.layers * rank * sum(sum(self.linear().get(name, (0, 0))) for name in modules)

    def activations(self) -> int:
        """Values a token that one block keeps for its backward pass."""
        return 3 * self.feed_forward + 2 * self.queries + 2 * self.keys + 2 * self.hidden


@dataclass(frozen=True)
class Costs:
    """What differs between engines; the factors and `workspace` are fitted, the rest follows from what they store."""

    optimizer: int  # bytes a trained parameter
    absmax: float  # bytes a packed parameter, beside its half byte
    kept: tuple[float, float]  # times Shape.activations() that a block really keeps: 16-bit base, 4-bit base
    recomputed: float  # the same for the one block that checkpointing holds at a time, times `kept`
    stored: tuple[int, int]  # bytes of a block's input that checkpointing holds on the GPU: 16-bit base, 4-bit base
    workspace: float  # GiB


ENGINES = {
    "unsloth": Costs(2, 1 / 64, (1.0, 1.0), 1.47, (0, 0), 0.30),  # 8-bit AdamW; block inputs wait in the host's memory
    "peft": Costs(8, 4 / 64, (1.81, 2.41), 1.0, (2, 4), 0.0),
}


def read_shape(folder: Path) -> Shape:
    """The shape in a base's config.json.  Raises UserError when it lacks one of the figures."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    try:
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        return Shape(
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            feed_forward=config["intermediate_size"],
            queries=heads * size,
            keys=(config.get("num_key_value_heads") or heads) * size,
            vocabulary=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: no usable {error}; fetch the base again") from None


def predicted_peak(
    shape: Shape,
    engine: str,
    lora: int,
    four_bit: bool,
    checkpointing: bool,
    tokens: int,
    width: int = 2,
    shards: int = 1,
    graphs: int = 1,
) -> float:
    """GiB at the peak of a training step over `tokens` tokens; `lora` is the number of trained parameters.

    `width` is the bytes of a value: 2 in bf16 and fp16, 4 in fp32.  Each of several CUDA `graphs` keeps its own gradients.
    With `shards` above 1 a GPU holds that part of the weights and, gathered, the embeddings and two blocks: the one that
    computes and the next (FSDP2; not measured).
    """
    costs = ENGINES[engine]
    packed = shape.block_parameters()
    weights = packed * (0.5 + costs.absmax if four_bit else width) + shape.embedding_parameters() * width
    trained = lora * (4 + costs.optimizer + 4 * graphs)
    if shards > 1:
        gathered = (2 * packed / shape.layers + shape.embedding_parameters()) * width
        weights, trained = weights / shards + gathered, trained / shards
    block = shape.activations() * width * costs.kept[four_bit]
    if checkpointing:
        held = costs.recomputed * block + shape.layers * shape.hidden * costs.stored[four_bit]
    else:
        held = shape.layers * block
    return float((weights + trained + tokens * held) / GIB + costs.workspace)

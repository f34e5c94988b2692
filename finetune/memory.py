"""Base's shape, LoRA, rows -> the GPU memory that one way of training takes at its peak.

A sum of what must be held: weights, LoRA, its gradients, optimizer, activations.  Two numbers for each engine were
fitted on one H200 at the shape of Mistral-7B (Unsloth 2026.10.9, PEFT 0.21, 2026-11-29: 29 settings from 512 to 16,384
tokens a step).  For a base of a few million parameters, `workspace` overestimates by 0.1 GiB.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from models.shape import Shape

GIB = 2**30


@dataclass(frozen=True)
class Costs:
    """What differs between engines; the factors and `workspace` are fitted, the rest follows from what they store."""

    optimizer: int  # bytes a trained parameter
    absmax: float  # bytes a packed parameter, beside its half byte
    kept: tuple[float, float]  # times activations() that a block really keeps: 16-bit base, 4-bit base
    recomputed: float  # the same for the one block that checkpointing holds at a time, times `kept`
    stored: tuple[int, int]  # bytes of a block's input that checkpointing holds on the GPU: 16-bit base, 4-bit base
    workspace: float  # GiB


ENGINES = {
    "unsloth": Costs(2, 1 / 64, (1.0, 1.0), 1.47, (0, 0), 0.30),  # 8-bit AdamW; block inputs wait in the host's memory
    "peft": Costs(8, 4 / 64, (1.81, 2.41), 1.0, (2, 4), 0.0),
}


def block_parameters(shape: Shape) -> int:
    """Parameters in the linear layers of all blocks: what a 4-bit base packs."""
    return shape.layers * sum(outputs * inputs for outputs, inputs in shape.linear().values())


def embedding_parameters(shape: Shape) -> int:
    return shape.vocabulary * shape.hidden * (1 if shape.tied else 2)


def lora_parameters(shape: Shape, rank: int, modules: Collection[str]) -> int:
    """Parameters of a LoRA of that rank on those of the `modules` that the base has."""
    sizes = {name.rpartition(".")[2]: sum(size) for name, size in shape.linear().items()}
    return shape.layers * rank * sum(sizes.get(name, 0) for name in modules)


def activations(shape: Shape) -> int:
    """Values a token that one block keeps for its backward pass."""
    attention = shape.head_size * (shape.heads + shape.kv_heads)
    return 3 * shape.feed_forward + 2 * attention + 2 * shape.hidden


def predicted_peak(
    shape: Shape, engine: str, lora: int, four_bit: bool, checkpointing: bool, tokens: int, width: int = 2, shards: int = 1,
    graphs: int = 1,
) -> float:  # fmt: skip
    """GiB at the peak of a training step over `tokens` tokens; `lora` is the number of trained parameters.

    `width` is the bytes of a value: 2 in bf16 and fp16, 4 in fp32.  Each of several CUDA `graphs` keeps its own gradients.
    With several `shards` (FSDP2, not measured) a GPU holds its share of the weights.  It also holds, gathered, the
    embeddings and two blocks: the one that computes and the next.
    """
    costs = ENGINES[engine]
    packed = block_parameters(shape)
    weights = packed * (0.5 + costs.absmax if four_bit else width) + embedding_parameters(shape) * width
    trained = lora * (4 + costs.optimizer + 4 * graphs)
    if shards > 1:
        gathered = (2 * packed / shape.layers + embedding_parameters(shape)) * width
        weights, trained = weights / shards + gathered, trained / shards
    block = activations(shape) * width * costs.kept[four_bit]
    if checkpointing:
        held = costs.recomputed * block + shape.layers * shape.hidden * costs.stored[four_bit]
    else:
        held = shape.layers * block
    return float((weights + trained + tokens * held) / GIB + costs.workspace)

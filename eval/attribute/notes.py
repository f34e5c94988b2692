"""A deployment and its steps' answers -> what must be known to read the table, and is no change of a step's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.attribute.steps import Deployment
from eval.attribute.table import Answered


def notes_of(deployment: Deployment, answered: Sequence[Answered]) -> Iterator[str]:
    """A line each: folders that do not follow from each other, prompts that differ, what stands for what."""
    yield from _traces(deployment, answered)
    yield from _other_prompts(answered)
    if any("arithmetic" in step.pins for step in answered):
        yield "torch: float32 on the CPU, the LoRA beside the base's weights; every export merges and rounds it"
    for step in answered:
        if "valid_records" in step.pins:
            cut = sum(row.answer.done_reason == "length" for row in step.rows)
            yield (
                f"{step.step}: {step.pins['valid_records']} of {len(step.rows)} answers were valid records and were "
                f"written out; the others are judged as they came ({cut} were broken off at num_predict)"
            )


def _traces(deployment: Deployment, answered: Sequence[Answered]) -> Iterator[str]:
    """Where a folder was not made from the folder before it: then that step changed more than its own work."""
    manifests = deployment.manifests
    trained = manifests["adapter"]["outputs"].get("adapter_model.safetensors") if "adapter" in manifests else None
    made = {name: manifests[name]["inputs"].get("adapter") for name in ("model-f16", "model") if name in manifests}
    for name, adapter in made.items():
        if adapter is None:
            yield f"{name}/ holds the untuned base"
        elif trained and adapter != trained:
            yield f"{name}/ was not exported from adapter/ as it is now, but from another adapter"
    weights = manifests["model"]["outputs"].get(deployment.gguf("model").name) if "model" in manifests else None
    for step in answered:
        if weights and "ollama" in step.pins and step.pins["weights"] != weights:
            yield f"{step.step}: the weights that are served are not those of model/"


def _other_prompts(answered: Sequence[Answered]) -> Iterator[str]:
    for step, before in zip(answered[1:], answered, strict=False):
        both = zip(
            (row.answer.prompt_tokens for row in step.rows),
            (row.answer.prompt_tokens for row in before.rows),
            strict=True,
        )
        other = sum(None not in pair and pair[0] != pair[1] for pair in both)
        if other:
            yield f"{step.step}: {other} prompts have another number of tokens than in {before.step}: not the same prompt"

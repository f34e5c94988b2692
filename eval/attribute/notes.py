"""A deployment and its answers -> notes: what else a reader of the table must know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.attribute.deployment import Deployment, other_adapter
from eval.attribute.table import Answered


def notes_of(deployment: Deployment, answered: Sequence[Answered]) -> Iterator[str]:
    """One line each: folders that were not made from each other, prompts that differ, how answers were made."""
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
    """Folders that were not made from the folder before them: such a step changes more than its own work."""
    models = {name: deployment.manifests[name] for name in ("model-f16", "model") if name in deployment.manifests}
    for name, manifest in models.items():
        if manifest["inputs"].get("adapter") is None:
            yield f"{name}/ holds the untuned base"
        elif other_adapter(deployment.manifests, name):
            yield f"{name}/ was not exported from adapter/ as it is now, but from another adapter"
    bases = {str(manifest["settings"].get("onto", "16bit")) for manifest in models.values()}
    if len(bases) > 1:
        yield "model-f16/ and model/ were merged onto different bases (--onto)"
    for step in answered:
        if deployment.weights and "ollama" in step.pins and step.pins["weights"] not in deployment.weights.values():
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

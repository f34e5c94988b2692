"""How a GPU's memory is spent: predictions against what was measured on one, and the plans that follow."""

from __future__ import annotations

import dataclasses

import pytest

from finetune.config import Settings, load_settings
from finetune.memory import block_parameters, embedding_parameters, lora_parameters, predicted_peak
from finetune.plan import HEADROOM, Gpu, TrainingPlan, make_plans, reason, share_of_one
from models.shape import Shape
from plumbing.errors import UserError

MISTRAL = Shape("llama", 32, 4096, 14336, 32, 8, 128, 32768, 32768, 1e-5, 1e6, tied=False)
LORA = lora_parameters(MISTRAL, 32, Settings("tiny").target_modules)
PRESET = load_settings("mistral_7b", [])
ROWS = [297] * 140 + [418] * 10  # tokens: the terminology task under Mistral's tokenizer

# engine, 4-bit base, checkpointing, rows x tokens, GiB that torch.cuda.max_memory_allocated gave (one H200, 2026-11-29)
MEASURED = [
    ("unsloth", False, False, 2, 256, 16.10), ("unsloth", False, False, 8, 256, 22.23),
    ("unsloth", False, False, 8, 512, 29.79), ("unsloth", False, False, 8, 1024, 44.15),
    ("unsloth", False, True, 2, 256, 14.45), ("unsloth", False, True, 8, 1024, 15.76),
    ("unsloth", True, False, 2, 256, 6.62), ("unsloth", True, False, 8, 256, 12.70),
    ("unsloth", True, False, 8, 512, 20.25), ("unsloth", True, False, 1, 512, 6.54),
    ("unsloth", True, True, 2, 256, 5.02), ("unsloth", True, True, 2, 2048, 5.69),
    ("unsloth", True, True, 8, 1024, 6.33), ("unsloth", True, True, 8, 2048, 7.71),
    ("peft", False, False, 8, 256, 28.24), ("peft", False, False, 8, 512, 41.80),
    ("peft", False, True, 2, 256, 15.03), ("peft", False, True, 8, 256, 15.68),
    ("peft", True, False, 2, 256, 10.12), ("peft", True, False, 8, 256, 23.69),
    ("peft", True, True, 2, 256, 5.87), ("peft", True, True, 2, 2048, 8.90),
]  # fmt: skip

# 4-bit base, rows x tokens, graphs, GiB that torch reserved for it: a graph keeps its memory when its tensors are gone
REPLAYED = [
    (False, 8, 448, 6, 28.68), (False, 8, 320, 3, 24.21), (True, 8, 448, 6, 19.26), (True, 8, 320, 2, 14.79)
]  # fmt: skip


def plans(free: float, settings: Settings = PRESET, pinned: tuple[str, ...] = (), **how: object) -> list[TrainingPlan]:
    return make_plans(settings, pinned, MISTRAL, ROWS, Gpu("a GPU", free), "unsloth", **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(("engine", "four_bit", "checkpointing", "rows", "tokens", "measured"), MEASURED)
def test_the_predicted_peak_is_the_measured_one(
    engine: str, four_bit: bool, checkpointing: bool, rows: int, tokens: int, measured: float
) -> None:
    predicted = predicted_peak(MISTRAL, engine, LORA, four_bit, checkpointing, rows * tokens)
    assert predicted == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(("four_bit", "rows", "tokens", "graphs", "measured"), REPLAYED)
def test_the_predicted_peak_is_what_graphs_were_measured_to_keep(
    four_bit: bool, rows: int, tokens: int, graphs: int, measured: float
) -> None:
    predicted = predicted_peak(MISTRAL, "unsloth", LORA, four_bit, False, rows * tokens, graphs=graphs)
    assert predicted == pytest.approx(measured, rel=0.03)


def test_only_a_step_of_one_micro_batch_and_process_is_replayed() -> None:
    found = plans(14.7) + plans(24) + plans(139) + plans(139, devices=2)
    assert {plan.cuda_graphs for plan in found} == {True, False}
    for plan in found:
        assert not plan.cuda_graphs or (plan.accumulation == 1 and not plan.checkpointing)
    assert plans(139)[0].cuda_graphs and "CUDA graphs: " in str(plans(139)[0])
    assert not any(plan.cuda_graphs for plan in plans(139, devices=2))
    assert not any(plan.cuda_graphs for plan in plans(139, dataclasses.replace(PRESET, cuda_graphs=False)))
    assert not make_plans(PRESET, (), MISTRAL, ROWS, Gpu("a GPU", 139), "peft")[0].cuda_graphs
    assert not make_plans(PRESET, (), MISTRAL, [1500] * 9, Gpu("a GPU", 139), "unsloth")[0].cuda_graphs


def test_weights_that_are_sharded_need_less_of_each_gpu() -> None:
    """A 16-bit base that one GPU of 11 GiB does not hold, and four do; what is gathered is not divided."""
    whole = dataclasses.replace(PRESET, load_in_4bit=False, batch=4, accumulation=2)
    with pytest.raises(UserError, match="the smallest plan needs"):
        plans(11, whole, devices=4)
    assert plans(11, dataclasses.replace(whole, parallel="fsdp"), devices=4)[0].peak < 10
    many = predicted_peak(MISTRAL, "peft", LORA, False, True, 1, shards=10**6)
    gathered = 2 * (2 * block_parameters(MISTRAL) / MISTRAL.layers + embedding_parameters(MISTRAL)) / 2**30
    assert gathered < many < gathered + 0.35


def test_the_shape_counts_mistrals_parameters() -> None:
    norms = (2 * MISTRAL.layers + 1) * MISTRAL.hidden
    assert block_parameters(MISTRAL) + embedding_parameters(MISTRAL) + norms == 7_248_023_552
    assert LORA == 83_886_080


def test_a_large_gpu_takes_the_whole_batch_at_once_in_16_bits() -> None:
    best = plans(139)[0]
    assert (best.batch, best.accumulation, best.checkpointing, best.load_in_4bit) == (8, 1, False, False)
    assert "not unpacked" in reason(best, PRESET, (), Gpu("a GPU", 139)) and "not computed twice" in reason(
        best, PRESET, (), Gpu("a GPU", 139)
    )


def test_a_t4_keeps_the_4_bit_base_and_cuts_the_batch() -> None:
    best = plans(14.7, precision="fp16")[0]
    assert best.load_in_4bit and best.batch * best.accumulation == 8 and best.peak <= 14.7 * HEADROOM


@pytest.mark.parametrize("free", [6, 8, 11, 14.7, 24, 40, 80, 139])
def test_every_plan_keeps_the_effective_batch_and_fits(free: float) -> None:
    found = plans(free)
    assert all(plan.batch * plan.accumulation == 8 and plan.peak <= free * HEADROOM for plan in found)
    assert [plan.peak for plan in found] == sorted((plan.peak for plan in found), reverse=True)  # what to fall back on
    assert len(set(found)) == len(found)


def test_more_memory_never_makes_it_slower() -> None:
    costs = [plans(free)[0].cost for free in (6, 8, 11, 14.7, 24, 40, 80)]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_what_is_set_by_hand_stays() -> None:
    settings = dataclasses.replace(PRESET, batch=2, accumulation=4)
    assert {plan.batch for plan in plans(139, settings, ("batch",))} == {2}
    assert all(plan.checkpointing for plan in plans(139, settings, ("checkpointing",)))
    assert all(plan.load_in_4bit for plan in plans(139, settings, ("load_in_4bit",)))
    assert {(plan.batch, plan.accumulation) for plan in plans(139, settings, ("accumulation",))} == {(2, 4)}


def test_a_16_bit_preset_is_never_packed() -> None:
    assert not any(plan.load_in_4bit for plan in plans(80, dataclasses.replace(PRESET, load_in_4bit=False)))


def test_the_rows_of_a_step_are_shared_by_the_gpus() -> None:
    assert all(plan.batch * plan.accumulation == 4 for plan in plans(139, devices=2))
    with pytest.raises(UserError, match="8 rows cannot be split over 3 processes"):
        plans(139, devices=3)


@pytest.mark.parametrize(("batch", "accumulation", "devices"), [(8, 1, 2), (2, 4, 2), (2, 4, 8), (6, 2, 4)])
def test_many_processes_without_a_plan_keep_the_effective_batch(batch: int, accumulation: int, devices: int) -> None:
    settings = share_of_one(dataclasses.replace(PRESET, batch=batch, accumulation=accumulation), devices)
    assert settings.batch * settings.accumulation * devices == batch * accumulation and settings.batch <= batch


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (8, 1)])
def test_a_preset_taken_as_it_is_runs_on_two_gpus_too(batch: int, accumulation: int) -> None:
    settings, all_keys = dataclasses.replace(PRESET, batch=batch, accumulation=accumulation), ("batch", "accumulation")
    (only,) = {(plan.batch, plan.accumulation) for plan in plans(139, settings, all_keys, devices=2)}
    assert only[0] * only[1] == 4 and only[0] <= batch


def test_a_batch_set_by_hand_is_not_said_to_be_the_largest_that_fits() -> None:
    (best, *_), gpu = plans(139, PRESET, ("batch",)), Gpu("a GPU", 139)
    assert "larger batch" in reason(best, PRESET, (), gpu) and "larger batch" not in reason(
        best, PRESET, ("batch",), gpu
    )


def test_too_little_memory_is_told_with_what_the_smallest_plan_needs() -> None:
    with pytest.raises(UserError, match=r"4\.0 GiB are free, the smallest plan needs \d\.\d"):
        plans(4)


def test_a_plan_is_put_into_the_settings() -> None:
    best = plans(139)[0]
    assert best.apply(PRESET) == dataclasses.replace(
        PRESET, batch=8, accumulation=1, checkpointing=False, load_in_4bit=False, cuda_graphs=True
    )

"""What is looked at before and in the first step of a training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from finetune.checks import check_batch, check_precision, check_weights, watch_activations
from plumbing.errors import UserError

ROWS = [
    {"input_ids": [1, 5, 6, 7, 2], "completion_mask": [0, 0, 1, 1, 1]},
    {"input_ids": [1, 8, 9, 2], "completion_mask": [0, 0, 1, 1]},
]


def collated(labels: list[list[int]]) -> SimpleNamespace:
    return SimpleNamespace(train_dataset=ROWS, data_collator=lambda _: {"labels": torch.tensor(labels)})


@pytest.mark.parametrize(
    "labels",
    [
        [[-100, -100, 6, 7, 2], [-100, -100, 9, 2, -100]],
        [[-100, -100, 6, 7, 2, -100, -100, 9, 2]],
    ],  # padded, end to end
)
def test_a_batch_that_trains_the_responses_passes(labels: list[list[int]]) -> None:
    check_batch(collated(labels), ROWS, stop=2)


@pytest.mark.parametrize(
    "labels",
    [
        [[1, 5, 6, 7, 2], [1, 8, 9, 2, -100]],  # the question too
        [[-100, -100, 6, 7, -100], [-100, -100, 9, -100, -100]],  # never the stop: padded with it, and masked
        [[-100, -100, 6, 7, 2], [-100, -100, -100, -100, -100]],  # a row lost
    ],
)
def test_a_batch_that_trains_anything_else_ends_the_run(labels: list[list[int]]) -> None:
    with pytest.raises(UserError, match="masks differently"):
        check_batch(collated(labels), ROWS, stop=2)


def test_a_response_without_the_stop_ends_the_run() -> None:
    with pytest.raises(UserError, match="not in the stop"):
        check_batch(collated([[-100, -100, 6, 7, 2]]), ROWS, stop=3)


def test_an_fp16_run_holds_no_bf16() -> None:
    model = torch.nn.Linear(2, 2).half()
    check_precision(model, "fp16")
    model.bias.data = model.bias.data.bfloat16()
    check_precision(model, "bf16")
    with pytest.raises(UserError, match="bias is bf16"):
        check_precision(model, "fp16")


class Casts(torch.nn.Module):
    """Its weights are fp16, what it hands on is not."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.linear = dtype, torch.nn.Linear(2, 2, dtype=torch.float16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, str]:
        return self.linear(x).to(self.dtype), "a word"


def first_step(dtype: torch.dtype, precision: str) -> None:
    model = torch.nn.ModuleDict({"block": Casts(dtype)})
    end = watch_activations(model, precision)
    model["block"](torch.ones(1, 2, dtype=torch.float16))
    end()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_module_that_computes_in_bf16_ends_an_fp16_run_by_name() -> None:
    with pytest.raises(UserError, match="block computes in bf16"):
        first_step(torch.bfloat16, "fp16")


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16")])
def test_what_the_precision_allows_goes_on(dtype: torch.dtype, precision: str) -> None:
    first_step(dtype, precision)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_the_last_step_spoiled_are_not_handed_on(value: float) -> None:
    check_weights({"good": torch.ones(2)})
    with pytest.raises(UserError, match="lora_B is not finite after the last step; lower learning_rate"):
        check_weights({"good": torch.ones(2), "lora_B": torch.tensor([1.0, value])})

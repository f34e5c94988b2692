"""A training's steps -> speed, memory and loss: shown while it runs, and as figures for the manifest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from finetune.memory import GIB
from plumbing.errors import UserError
from plumbing.progress import progress


class Meter:
    """Time, speed and memory of one training.  `tokens_a_step` is the mean of an optimizer step, without padding."""

    def __init__(self, tokens_a_step: float) -> None:
        self.tokens_a_step = tokens_a_step
        self.first_step = 0.0  # seconds of the first step, which includes compiling
        self.loss = math.nan

    def start(self, step: int) -> None:
        self.started, self.first, self.done = time.monotonic(), step, step

    def step(self, step: int) -> None:
        self.done = step
        if step == self.first + 1:
            _wait()
            self.first_step = time.monotonic() - self.started

    def stop(self) -> None:
        _wait()
        self.seconds = time.monotonic() - self.started

    def seconds_a_step(self) -> float:
        steps, seconds = max(1, self.done - self.first), time.monotonic() - self.started
        if steps > 1:  # the first step says nothing about the others
            steps, seconds = steps - 1, seconds - self.first_step
        return seconds / steps

    def note(self) -> str:
        """Loss, speed and memory after the last step."""
        speed = f"{self.tokens_a_step / self.seconds_a_step():,.0f} tokens/s"
        memory = f"  {peak_gpu_memory():.1f} GiB" if peak_gpu_memory() else ""
        return f"loss {self.loss:.3f}  {speed}{memory}"

    def line(self, all_steps: int) -> str:
        left = self.seconds_a_step() * (all_steps - self.done)
        return f"step {self.done}/{all_steps}  {self.note()}  {left:.0f} s left"

    def display(self, all_steps: int) -> AbstractContextManager[Callable[[int], None]]:
        return progress(
            "training", all_steps, line=lambda: self.line(all_steps),
            due=lambda done: done in (1, all_steps) or done % 50 == 0,
            note=lambda: self.note() if self.done > self.first else "",
        )  # fmt: skip

    def figures(self) -> dict[str, float]:
        """Seconds, tokens a second and GiB of the whole training."""
        return {
            "train_seconds": round(self.seconds, 2),
            "first_step_seconds": round(self.first_step, 2),
            "tokens_per_second": round(self.tokens_a_step * max(1, self.done - self.first) / self.seconds, 1),
            "peak_gpu_gib": round(peak_gpu_memory(), 2),
        }


def make_callback(meter: Meter, stack: ExitStack, after_first: Callable[[], None] = lambda: None) -> Any:
    """A Trainer callback that shows what `meter` measures until `stack` closes.

    `after_first` is called once, after the first step that this process trains.  Raises UserError when the loss is not a
    number: further training would be useless.
    """
    from transformers import TrainerCallback

    class Callback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.start(state.global_step)
            self.show = stack.enter_context(meter.display(state.max_steps)) if state.is_world_process_zero else str

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if meter.done == meter.first:
                after_first()
            meter.step(state.global_step)
            last = state.global_step == state.max_steps
            # A loss is the mean since the last log, and a resumed run knows only the steps after its checkpoint.
            control.should_log = control.should_log or control.should_save or last
            control.should_save = control.should_save and not last  # a run resumed from there would train one step more

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_log = True  # so that an epoch's mean is the mean over every row once

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            meter.loss = logs.get("loss", meter.loss)
            if "loss" in logs and not math.isfinite(meter.loss):
                cure = "lower learning_rate or use precision=fp32"
                raise UserError(f"step {meter.done}: the loss is {meter.loss}; {cure}")
            if "loss" in logs:
                self.show(meter.done)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.stop()

    return Callback()


def peak_gpu_memory() -> float:
    """The most GiB that torch held on this process's GPU; 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()

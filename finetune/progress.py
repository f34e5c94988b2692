"""How the training goes: a bar on a terminal, plain lines elsewhere, and the figures that go into the manifest."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from finetune.memory import GIB
from plumbing.errors import UserError


class Meter:
    """Time, speed and memory of one training; `tokens_a_step` is an optimizer step's mean, without padding."""

    def __init__(self, tokens_a_step: float) -> None:
        self.tokens_a_step = tokens_a_step
        self.first_step = 0.0  # seconds that the first step took: compiling is in it

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

    def line(self, loss: float, all_steps: int) -> str:
        """What is shown of the step that was just done."""
        steps, seconds = max(1, self.done - self.first), time.monotonic() - self.started
        if steps > 1:  # the first step is no measure of those to come
            steps, seconds = steps - 1, seconds - self.first_step
        speed = f"{self.tokens_a_step * steps / seconds:,.0f} tokens/s"
        memory = f"  {peak_gpu_memory():.1f} GiB" if peak_gpu_memory() else ""
        left = seconds / steps * (all_steps - self.done)
        return f"step {self.done}/{all_steps}  loss {loss:.3f}  {speed}{memory}  {left:.0f} s left"

    def figures(self) -> dict[str, float]:
        """Seconds, tokens a second and GiB of the whole training."""
        return {
            "train_seconds": round(self.seconds, 2),
            "first_step_seconds": round(self.first_step, 2),
            "tokens_per_second": round(self.tokens_a_step * max(1, self.done - self.first) / self.seconds, 1),
            "peak_gpu_gib": round(peak_gpu_memory(), 2),
        }


def make_progress(meter: Meter, after_first: Callable[[], None] = lambda: None) -> Any:
    """A Trainer callback that shows what `meter` measures; a loss that is no number ends the run with a UserError.

    `after_first` is called once, after the first step that this process trains.
    """
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.start(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if meter.done == meter.first:
                after_first()
            meter.step(state.global_step)
            last = state.global_step == state.max_steps
            # A loss is the mean since the last log, of which a resumed run knows only what came after its checkpoint.
            control.should_log = control.should_log or control.should_save or last
            control.should_save = control.should_save and not last  # resumed from there, it would train one step more

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_log = True  # so that an epoch's mean is the mean over every row once

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is None:
                return
            check_loss(loss, meter.done)
            if state.is_world_process_zero:
                _show(meter.done, state.max_steps, meter.line(loss, state.max_steps))

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.stop()

    return Progress()


def check_loss(loss: float, step: int) -> None:
    """Raises UserError when it is no number: nothing that comes after it is worth training."""
    if not math.isfinite(loss):
        raise UserError(f"step {step}: the loss is {loss}; lower learning_rate or use precision=fp32")


def peak_gpu_memory() -> float:
    """GiB that torch held at most on this process's GPU; 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _show(done: int, all_steps: int, line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="\n" if done == all_steps else "", file=sys.stderr, flush=True)
    elif done == 1 or done == all_steps or done % 50 == 0:
        print(line, flush=True)

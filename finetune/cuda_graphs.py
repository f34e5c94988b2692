"""Runs Unsloth's decoder as CUDA graphs: one launch instead of thousands that the GPU waits for.

A graph has one shape, so a batch's rows are padded to one of a few lengths.  Attention looks back only, so the padding
after a row's end changes nothing.  Graphs are for one process and one micro-batch a step: the gradients are in a graph's
own memory, and its next replay overwrites them.  Checkpointing copies to the host and cannot be captured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_TOKENS = 8192  # of a batch: with more, the GPU computes longer than the CPU needs for its launches


def graph_lengths(lengths: Iterable[int], batch: int) -> set[int]:
    """The lengths that batches of `batch` rows are padded to, without those above MOST_TOKENS."""
    return {size for size in map(graph_length, lengths) if batch * size <= MOST_TOKENS}


def graph_length(length: int) -> int:
    """The length that a row of `length` tokens is padded to.  There are four between a power of 2 and the next.

    >>> [graph_length(n) for n in (1, 100, 256, 257, 321, 513)]
    [16, 112, 256, 320, 384, 640]
    """
    step = max(16, 2 ** (length - 1).bit_length() // 8)
    return -(-length // step) * step


class GraphedDecoder:
    """A decoder's forward pass on up to `rows` rows: captured when a length first appears, then replayed.

    It is eager outside training.
    """

    def __init__(self, decoder: Any, rows: int) -> None:
        import torch

        self.decoder, self.eager, self.rows = decoder, decoder.forward, rows
        self.pool = torch.cuda.graph_pool_handle()  # one for all: only one graph's activations are needed at a time
        self.graphs: dict[int, Any] = {}

    def __call__(self, input_ids: Any = None, **options: Any) -> Any:
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPast

        packed = options.get("packed_seq_lengths") is not None or options.get("position_ids") is not None
        if input_ids is None or packed or not (self.decoder.training and torch.is_grad_enabled()):
            return self.eager(input_ids=input_ids, **options)
        rows, length = input_ids.shape
        size = graph_length(length)
        if rows > self.rows or self.rows * size > MOST_TOKENS:
            return self.eager(input_ids=input_ids, **options)
        padded = torch.nn.functional.pad(input_ids, (0, size - length, 0, self.rows - rows))
        if size not in self.graphs and not self._captured(size, padded):
            return self.eager(input_ids=input_ids, **options)
        return BaseModelOutputWithPast(last_hidden_state=self.graphs[size](padded)[:rows, :length])

    def _captured(self, size: int, sample: Any) -> bool:
        """Try to capture a graph for `size`; after a failure no graph is tried again."""
        import torch

        try:
            self.graphs[size] = self._capture(sample)
            return True
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # for example an attention kernel that waits for the GPU
            cause = str(error).splitlines()[0]
            print(f"no CUDA graphs here: {cause}; kernels are launched one by one", flush=True)
            self.rows = 0
            return False

    def _capture(self, sample: Any) -> Any:
        import torch

        kind = torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", kind, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            step = _step(self.decoder, self.eager)
            warmup = 0 if self.graphs else 1  # once loads the kernels; it takes the memory again, outside the pool
            return torch.cuda.make_graphed_callables(step, (sample.clone(),), num_warmup_iters=warmup, pool=self.pool)


def _step(decoder: Any, eager: Any) -> Any:
    import torch

    class Step(torch.nn.Module):
        """Token ids (rows, length) -> hidden states (rows, length, hidden), with the decoder's parameters."""

        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, input_ids: Any) -> Any:
            return eager(input_ids=input_ids, use_cache=False, return_dict=True).last_hidden_state

    return Step()

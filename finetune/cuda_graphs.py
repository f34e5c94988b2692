"""Unsloth's decoder, forward and backward, as CUDA graphs: one launch each, where a GPU would wait for the CPU's thousands.

A graph is of one shape, so a batch's rows are padded to one of a few lengths; what stands behind a row's end is seen by
nothing, as attention looks back only.  It is for one process and one micro-batch a step: the gradients are a graph's own
memory, which its next replay overwrites.  Checkpointing copies to the host meanwhile and cannot be captured.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_TOKENS = 8192  # of a batch: above it the GPU computes for longer than the CPU takes to launch


def graph_lengths(lengths: Iterable[int], batch: int) -> set[int]:
    """What batches of `batch` rows of such lengths are padded to; none of more tokens than MOST_TOKENS."""
    return {size for size in map(graph_length, lengths) if batch * size <= MOST_TOKENS}


def graph_length(length: int) -> int:
    """The length that rows of `length` tokens are padded to: four in each doubling.

    >>> [graph_length(n) for n in (1, 100, 256, 257, 321, 513)]
    [16, 112, 256, 320, 384, 640]
    """
    step = max(16, 2 ** (length - 1).bit_length() // 8)
    return -(-length // step) * step


def graph_decoder(model: Any, rows: int) -> None:
    """Have the decoder of `model`, a PEFT model by Unsloth, replay batches of up to `rows` rows from now on."""
    decoder = model.get_base_model().model
    decoder.forward = GraphedDecoder(decoder, rows)


class GraphedDecoder:
    """The decoder's forward pass: captured when a length comes first, replayed after that; eager for what is no training batch."""

    def __init__(self, decoder: Any, rows: int) -> None:
        import torch

        self.decoder, self.eager, self.rows = decoder, decoder.forward, rows
        self.pool = torch.cuda.graph_pool_handle()  # one: only one graph's activations are needed at a time
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
        """Whether there is a graph for `size` now.  Where none can be had, none is tried again."""
        import torch

        try:
            self.graphs[size] = self._capture(sample)
            return True
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an attention kernel that waits for the GPU, say
            told = str(error).splitlines()[0]
            print(f"no CUDA graphs here: {told}; kernels are launched one by one", flush=True)
            self.rows = 0
            return False

    def _capture(self, sample: Any) -> Any:
        import torch

        kind = torch.get_autocast_dtype("cuda")
        with torch.autocast("cuda", kind, enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            step = _step(self.decoder, self.eager)
            warmup = 0 if self.graphs else 1  # outside the pool, so it is as much memory again: once, for the kernels
            return torch.cuda.make_graphed_callables(step, (sample.clone(),), num_warmup_iters=warmup, pool=self.pool)


def _step(decoder: Any, eager: Any) -> Any:
    import torch

    class Step(torch.nn.Module):
        """Token ids (rows, length) -> hidden states (rows, length, hidden), with the decoder's parameters as its own."""

        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, input_ids: Any) -> Any:
            return eager(input_ids=input_ids, use_cache=False, return_dict=True).last_hidden_state

    return Step()

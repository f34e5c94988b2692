"""The padding around a graph, with torch's capture left out (it needs a GPU): hidden states and gradients stay the decoder's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetune.cuda_graphs import MOST_TOKENS, GraphedDecoder, graph_length, graph_lengths


class Decoder(torch.nn.Module):
    """Looks back only, as a causal decoder does; remembers the shapes that it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, 3)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        self.shapes.append(tuple(input_ids.shape))
        return BaseModelOutputWithPast(last_hidden_state=self.embedding(input_ids).cumsum(1))


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """One of up to 4 rows a batch, whose captures return what was to be captured."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda step, sample, **_: step)
    made = Decoder()
    made.forward = GraphedDecoder(made, rows=4)  # type: ignore[method-assign]
    return made


def ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("rows", "length"), [(4, 96), (4, 100), (3, 33), (1, 1)])
def test_a_padded_batch_has_the_hidden_states_and_gradients_of_its_own(
    decoder: Decoder, rows: int, length: int
) -> None:
    batch, weights = ids(rows, length), decoder.embedding.weight
    padded = decoder(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state
    plain = Decoder.forward(decoder, batch).last_hidden_state
    assert decoder.shapes == [(4, graph_length(length)), (rows, length)]
    assert torch.equal(padded, plain)
    (ours,), (theirs,) = (torch.autograd.grad(states.square().sum(), weights) for states in (padded, plain))
    torch.testing.assert_close(ours, theirs)


def test_a_length_is_captured_once(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    warmups: list[int] = []

    def capture(step: Any, sample: Any, num_warmup_iters: int, pool: Any) -> Any:
        warmups.append(num_warmup_iters)
        return step

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    for length in (100, 101, 110, 60, 97, 61):
        decoder(input_ids=ids(4, length))
    assert warmups == [1, 0]  # for 112 and for 64; a second warm-up would take as much memory again


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (ids(5, 20), {}),  # more rows than the plan has
        (ids(4, MOST_TOKENS // 4 + 1), {}),
        (ids(1, 20), {"packed_seq_lengths": torch.tensor([12, 8])}),  # rows end to end
        (ids(2, 20), {"position_ids": torch.arange(20)}),
    ],
)
def test_what_no_graph_is_for_runs_as_it_is(decoder: Decoder, batch: torch.Tensor, options: dict[str, Any]) -> None:
    decoder(input_ids=batch, **options)
    assert decoder.shapes == [tuple(batch.shape)]


def test_where_nothing_can_be_captured_it_runs_as_it_is_and_says_so_once(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def capture(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    for length in (100, 60):
        assert decoder(input_ids=ids(4, length)).last_hidden_state.shape == (4, length, 3)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "stream is capturing; kernels are launched one by one" in said


def test_memory_that_ends_in_a_capture_ends_the_plan(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def capture(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    with pytest.raises(torch.OutOfMemoryError):
        decoder(input_ids=ids(4, 100))


def test_outside_of_training_it_runs_as_it_is(decoder: Decoder) -> None:
    with torch.no_grad():
        decoder(input_ids=ids(4, 100))
    decoder.eval()
    decoder(input_ids=ids(4, 100))
    assert decoder.shapes == [(4, 100), (4, 100)]


def test_padding_is_less_than_a_quarter_of_the_row() -> None:
    for length in range(65, 4097):
        assert length <= graph_length(length) < 1.25 * length and graph_length(length) % 16 == 0
    assert graph_lengths(range(65, 4097), batch=8) == {
        80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024
    }  # fmt: skip

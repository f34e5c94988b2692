"""models.torch_model: torch answers as llama.cpp and Ollama do."""

import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from contract.base import load_base
from models.answers import Request
from models.embedded import open_gguf, read_served, until_stop
from models.gguf_model import open_llama
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from models.torch_model import greedy, open_torch, pieces
from quantize.register import register
from tests.conftest import ROOT, make_small_adapter, make_small_base

ASKED = [({"role": "user", "content": text},) for text in ("Explain: uremia", "What is 🫀?", " two  spaces and é ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/, adapter/ and model/ (f16) of one small random model."""
    folder = tmp_path_factory.mktemp("parts")
    base = make_small_base(folder / "base", tie_word_embeddings=False, initializer_range=0.2)
    make_small_adapter(base, folder / "adapter")
    command = [sys.executable, "-m", "quantize", folder / "adapter", "--out", folder / "model", "--type", "f16"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_torch_answers_as_llama_cpp_does(place: Path) -> None:
    settings = {"num_predict": 12}
    served = read_served(place / "model")
    served.options.update(settings)
    with (
        open_torch(place / "base", place / "adapter", "16bit", served) as ours,
        open_gguf(place / "model" / "model.f16.gguf", settings) as theirs,
    ):
        for messages in ASKED:
            mine, other = ours.ask(Request("a", messages)), theirs.ask(Request("a", messages))
            assert (mine.text, mine.done_reason) == (other.text, other.done_reason) and len(mine.text) > 5
            assert (mine.prompt_tokens, mine.answer_tokens) == (other.prompt_tokens, other.answer_tokens)


@pytest.mark.parametrize(
    ("name", "values", "tokens"),
    [
        ("repeat_penalty", (1.0, 0.5), 8),
        ("frequency_penalty", (0.0, 20.0), 14),
    ],  # as far as random weights have no ties
)
def test_a_penalty_is_ollamas(ollama: str, place: Path, name: str, values: tuple[float, float], tokens: int) -> None:
    register(place / "model", "penalised", Server(ollama))
    texts = {}
    for penalty in values:  # the second of repeat_penalty rewards: what the prompt holds comes at once
        settings = {"num_predict": tokens, "frequency_penalty": 0.0, name: penalty}
        served = read_served(place / "model")
        served.options.update(settings)
        with (
            open_torch(place / "base", place / "adapter", "16bit", served) as ours,
            open_ollama(Server(ollama), "penalised", settings) as theirs,
        ):
            texts[penalty] = [[backend.ask(Request("a", m)).text for m in ASKED] for backend in (ours, theirs)]
    assert all(mine == other for mine, other in texts.values()) and texts[values[0]] != texts[values[1]]


@pytest.mark.parametrize(
    ("penalty", "last", "tokens"),
    [(1.0, 64, [1, 1, 1, 1]), (2.0, 0, [1, 1, 1, 1]), (2.0, 1, [1, 2, 1, 2]), (2.0, 2, [1, 2, 3, 1]),
     (2.0, -1, [1, 2, 3, 4]), (2.0, 64, [1, 2, 3, 4])],
)  # fmt: skip
def test_a_penalty_looks_back_only_so_far(penalty: float, last: int, tokens: list[int]) -> None:
    import torch

    logits = torch.tensor([[[0.0, 9.0, 8.0, 7.0, 6.0]]])  # token 1 the likeliest, then 2, 3, 4

    options = {"repeat_penalty": penalty, "repeat_last_n": last, "frequency_penalty": 0.0}

    def model(**_: object) -> SimpleNamespace:
        return SimpleNamespace(past_key_values=None, logits=logits)

    assert list(islice(greedy(model, [0], options), 4)) == tokens


def test_the_base_is_not_the_adapter(place: Path) -> None:
    served = read_served(place / "model")
    served.options["num_predict"] = 12
    with (
        open_torch(place / "base", None, "16bit", served) as base,
        open_torch(place / "base", place / "adapter", "16bit", served) as tuned,
    ):
        assert base.ask(Request("a", ASKED[0])).text != tuned.ask(Request("a", ASKED[0])).text


def test_limits_end_an_answer_in_torch(place: Path) -> None:
    served = read_served(place / "model")
    with open_torch(place / "base", place / "adapter", "16bit", served) as backend:
        short = backend.ask(Request("a", ASKED[0], {"num_predict": 3}))
        full = backend.ask(Request("a", ASKED[0], {"num_ctx": (short.prompt_tokens or 0) + 2}))
        long = backend.ask(Request("a", ({"role": "user", "content": "kidney " * 2000},)))
        stopped = backend.ask(Request("a", ASKED[0], {"num_predict": 12, "stop": [short.text]}))
    assert (short.answer_tokens, short.done_reason) == (3, "length")
    assert (full.answer_tokens, full.done_reason) == (2, "length")
    assert long.error_kind == "server" and "the context 1024" in long.error
    assert (stopped.text, stopped.done_reason, stopped.answer_tokens) == ("", "stop", 3)


def test_every_token_says_what_it_says_in_llama_cpp(place: Path) -> None:
    said = pieces(place / "base")
    with open_llama(place / "model" / "model.f16.gguf", load_base("tiny"), 64) as model:
        llama = model.llama
        assert all(said(token) == llama.detokenize([3, token]) for token in range(3, llama.n_vocab()))
        assert said(llama.n_vocab()) == said(1) == said(2) == b""


@pytest.mark.parametrize(
    ("spoken", "stops", "found"),
    [
        ([b"a b"], ["</s>"], ("a b", "length", 1)),
        ([b"a </s> b", b"c"], ["</s>"], ("a ", "stop", 1)),
        ([b"a Q b", b" Z", b"c"], ["Z", "Q"], ("a ", "stop", 1)),
        ([b"a", b" </", b"s", b">b"], ["</s>"], ("a ", "stop", 4)),
        ([b"a", b"\xc3", b"\xa9"], [], ("aé", "length", 3)),
        ([b"a", b"\xc3"], [], ("a", "length", 2)),
        ([b"a", b"\xc3", b"\xc3"], [], ("a", "length", 3)),
        ([b"a\xff b"], [], ("a\ufffd b", "length", 1)),
        ([b"a", b"", b"b"], [], ("a", "stop", 2)),
    ],
)
def test_an_answer_ends_at_its_first_stop(spoken: list[bytes], stops: list[str], found: tuple[str, str, int]) -> None:
    """Token n has the text `spoken[n]`; the stop token's is empty."""
    end = spoken.index(b"") if b"" in spoken else -1
    assert until_stop(range(len(spoken)), spoken.__getitem__, end, stops, len(spoken)) == found

"""The parts of eval.attribute: torch answers as llama.cpp does, divergences of known size."""

import math
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from eval.attribute.logits import Forced, Logits, agree, forced_rows, llama_logits, open_llama
from models.answers import Request
from models.embedded import open_gguf, read_served
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from models.torch_model import greedy, open_torch, pieces, until_stop
from plumbing.errors import UserError
from quantize.register import register
from tests.conftest import ROOT, make_small_adapter, make_small_base
from tests.eval.attribute.test_table import example

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
        open_torch(place / "base", place / "adapter", served) as ours,
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
            open_torch(place / "base", place / "adapter", served) as ours,
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
        open_torch(place / "base", None, served) as base,
        open_torch(place / "base", place / "adapter", served) as tuned,
    ):
        assert base.ask(Request("a", ASKED[0])).text != tuned.ask(Request("a", ASKED[0])).text


def test_limits_end_an_answer_in_torch(place: Path) -> None:
    served = read_served(place / "model")
    with open_torch(place / "base", place / "adapter", served) as backend:
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
    with open_llama(place / "model" / "model.f16.gguf", 64) as llama:
        assert all(said(token) == llama.detokenize([3, token]) for token in range(3, llama.n_vocab()))
        assert said(llama.n_vocab()) == said(1) == said(2) == b""


@pytest.mark.parametrize(
    ("spoken", "stops", "found"),
    [
        (b"a b", ["</s>"], ("a b", False)),
        (b"a </s> b", ["</s>"], ("a ", True)),
        (b"a Q b Z", ["Z", "Q"], ("a ", True)),
        ("aé".encode()[:-1], [], ("a", False)),
        (b"a\xff b", [], ("a\ufffd b", False)),
    ],
)
def test_an_answer_ends_at_its_first_stop(spoken: bytes, stops: list[str], found: tuple[str, bool]) -> None:
    assert until_stop(spoken, stops) == found


def fixed(*shares: tuple[float, ...]) -> Logits:
    """Logits of given distributions, one a token, shifted: a constant changes no distribution."""
    table = np.log(np.array(shares)) + 7
    return lambda ids: table[: len(ids)]


HALF, QUARTER, OTHER = (0.5, 0.5 - 1e-9), (0.25, 0.75), (0.999, 0.001)


def test_a_known_divergence() -> None:
    """KL((3/4, 1/4) || (1/4, 3/4)) = ln 3 / 2; the tokens of the prompt and what follows the last one do not count."""
    refer, measure = fixed(OTHER, (0.75, 0.25), (0.75, 0.25), OTHER), fixed(QUARTER, QUARTER, (0.75, 0.25), QUARTER)
    found = agree("m", measure, "r", refer, [Forced([0, 1, 0, 1], 2)], 4)
    assert (found.rows, found.tokens, found.top1, found.left_out) == (1, 2, 0.5, 0)
    assert found.kl_mean == pytest.approx(math.log(3) / 4)
    assert found.kl_99 == pytest.approx(0.99 * math.log(3) / 2)
    assert (found.measured, found.reference) == ("m", "r")


def test_the_divergence_is_from_the_reference() -> None:
    narrow, wide = fixed((0.9, 0.1), (0.9, 0.1)), fixed((0.5, 0.5), (0.5, 0.5))
    [there, back] = [agree("m", m, "r", r, [Forced([0, 1], 1)], 2).kl_mean for m, r in ((wide, narrow), (narrow, wide))]
    assert there == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    assert back == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5))


def test_rows_that_do_not_fit_are_counted_and_none_is_an_error() -> None:
    same = fixed(HALF, HALF, HALF)
    rows = [Forced([0, 1], 1), Forced([0, 1, 0], 1)]
    assert agree("m", same, "r", same, rows, 2).left_out == 1
    with pytest.raises(UserError, match="no expected answer fits num_ctx 1"):
        agree("m", same, "r", same, rows, 1)
    with pytest.raises(UserError, match="vocabularies differ: 2 and 3"):
        agree("m", same, "r", fixed((0.2, 0.3, 0.5), (0.2, 0.3, 0.5)), rows[:1], 2)


def test_a_gguf_against_itself_diverges_nowhere(place: Path) -> None:
    served, gguf = read_served(place / "model"), place / "model" / "model.f16.gguf"
    asked = [example(str(n), "uremia") for n in range(2)]
    with open_llama(gguf, 1024) as one, open_llama(gguf, 1024) as two:
        rows = forced_rows(one, served, asked)
        found = agree("m", llama_logits(one), "r", llama_logits(two), rows, 1024)
        twice = llama_logits(one)(rows[0].ids).copy()
        assert (twice == llama_logits(one)(rows[0].ids)).all(), "nothing is left of the row before"
    with open_gguf(gguf) as backend:
        turns = ({"role": "user", "content": asked[0].request},)
        assert rows[0].start == backend.ask(Request("a", turns, {"num_predict": 1})).prompt_tokens
    assert (found.kl_mean, found.kl_99, found.top1) == (0.0, 0.0, 1.0)
    assert found.tokens == sum(len(row.ids) - row.start for row in rows)
    told = b"".join(pieces(place / "base")(token) for row in rows[:1] for token in row.ids[row.start :])
    assert told.decode() == " " + asked[0].response and rows[0].ids[-1] == 2 and rows[0].ids[0] == 1

"""models.gguf_model and models.divergence: tokens and logits of a real GGUF, divergences of known size."""

import math
from pathlib import Path

import numpy as np
import pytest

from contract.base import load_base
from models.divergence import kl_divergence, log_softmax, same_top1
from models.gguf_model import open_llama
from plumbing.errors import UserError
from tests.conftest import make_small_adapter, make_small_base
from tests.eval.parity.test_parity import make_model

GGUF = "model.q4_k_m.gguf"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gguf")
    base = make_small_base(place / "base", tie_word_embeddings=False, initializer_range=0.2)
    return make_model(make_small_adapter(base, place / "adapter"), place / "model") / GGUF


def shares(*rows: tuple[float, ...]) -> np.ndarray:
    """Logits of these distributions, shifted: a constant changes no distribution."""
    return np.log(np.array(rows)) + 7


def test_a_known_divergence() -> None:
    """KL((3/4, 1/4) || (1/4, 3/4)) = ln 3 / 2."""
    reference, measured = shares((0.75, 0.25), (0.75, 0.25)), shares((0.25, 0.75), (0.75, 0.25))
    assert kl_divergence(reference, measured) == pytest.approx([math.log(3) / 2, 0])
    assert same_top1(reference, measured).tolist() == [False, True]
    assert np.exp(log_softmax(reference)) == pytest.approx(np.array([[0.75, 0.25]] * 2))


def test_the_divergence_is_from_the_reference() -> None:
    narrow, wide = shares((0.9, 0.1)), shares((0.5, 0.5))
    assert kl_divergence(narrow, wide) == pytest.approx([0.9 * math.log(1.8) + 0.1 * math.log(0.2)])
    assert kl_divergence(wide, narrow) == pytest.approx([0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(5)])


def test_logits_are_of_all_tokens_and_nothing_is_left_of_the_row_before(gguf: Path) -> None:
    with open_llama(gguf, load_base("tiny"), 64, all_logits=True) as one:
        ids = one.tokenize("[INST] What is uremia?[/INST]")
        assert ids[0] == one.llama.token_bos() and ids.count(ids[0]) == 1 and one.llama.detokenize(ids[1:2]) == b""
        first = one.logits(ids)
        one.logits(ids[::-1])
        assert first.shape == (len(ids), one.llama.n_vocab()) and (first == one.logits(ids)).all()
        assert (kl_divergence(first, one.logits(ids)) == 0).all()


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / GGUF).write_bytes(b"GGUF")
    with (
        pytest.raises(UserError, match=r"llama\.cpp cannot load it"),
        open_llama(tmp_path / GGUF, load_base("tiny"), 64),
    ):
        pass

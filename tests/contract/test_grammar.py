"""llama.cpp's own grammar matcher takes what is written, and only what reads clean."""

from __future__ import annotations

import ctypes
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contract import Contract, load_contract
from tests.strategies import FORMS, SHIPPED, contracts, load_text, written

EOS, FIRST_BYTE, FIRST_PIECE = 2, 3, 259
# Pieces of more than a byte, as real vocabularies have them: they cross the borders of the grammar's rules.
PIECES = [
    "\n\n",
    "\n\n\n",
    "**",
    ": ",
    " **",
    ":**",
    "**:",
    ".\n",
    " -",
    "\n- ",
    "- - ",
    " and",
    "ü",
    "中",
    "😀",
    "\u00a0",
    "\u2028",
    "\x85",
    "\u3000",
    "\u200b",
    "\ufeff",
    " **Note**: ",
    "\n\n**Note**: ",
    "\n**Explanation**:",
    "\nA: ",
    "Q: ",
    "yes",
    "ye",
]


class Matcher:
    """llama.cpp's matcher for one grammar.  `accepts` a text, or walk it piece by piece: `allowed`, `accept`."""

    def __init__(self, vocabulary: Any, grammar: str) -> None:
        import llama_cpp

        self.llama = llama_cpp
        self.sampler = llama_cpp.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
        # A grammar that cannot be parsed constrains nothing, and llama.cpp says so only on stderr.
        every = list(range(FIRST_BYTE, FIRST_BYTE + 256))
        self.parsed = self.allowed(every) != every

    def allowed(self, tokens: Any) -> list[int]:
        data = [self.llama.llama_token_data(token, 0.0, 0.0) for token in tokens]
        array = (self.llama.llama_token_data * len(data))(*data)
        candidates = self.llama.llama_token_data_array(array, len(data), -1, False)
        self.llama.llama_sampler_apply(self.sampler, ctypes.byref(candidates))
        return [entry.id for entry in array if not math.isinf(entry.logit)]

    def accept(self, token: int) -> None:
        self.llama.llama_sampler_accept(self.sampler, token)

    def accepts(self, text: str) -> bool:
        self.llama.llama_sampler_reset(self.sampler)
        for byte in text.encode():
            if not self.allowed([FIRST_BYTE + byte]):
                return False
            self.accept(FIRST_BYTE + byte)
        return bool(self.allowed([EOS]))

    def close(self) -> None:
        self.llama.llama_sampler_free(self.sampler)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A llama.cpp vocabulary of every byte and PIECES, from a GGUF without tensors."""
    import gguf
    import llama_cpp

    path = tmp_path_factory.mktemp("vocabulary") / "bytes.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(64)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *(p.replace(" ", "\u2581") for p in PIECES),
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(PIECES))  # unknown, control, byte, normal
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    settings = llama_cpp.llama_model_default_params()
    settings.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), settings)
    yield llama_cpp.llama_model_get_vocab(model)
    llama_cpp.llama_model_free(model)


@pytest.fixture(scope="module")
def matcher(vocabulary: Any) -> Iterator[Callable[[Contract], Matcher]]:
    """Matchers by contract, each built once."""
    made: dict[Contract, Matcher] = {}

    def make(contract: Contract) -> Matcher:
        if contract not in made:
            made[contract] = Matcher(vocabulary, contract.grammar())
            assert made[contract].parsed, f"llama.cpp cannot parse\n{contract.grammar()}"
        return made[contract]

    yield make
    for one in made.values():
        one.close()


Make = Callable[[Contract], Matcher]


@given(case=written())
def test_the_grammar_takes_what_is_written(matcher: Make, case: Any) -> None:
    contract, _, text = case
    assert matcher(contract).accepts(text)


@given(case=written(), data=st.data())
@settings(max_examples=300)
def test_the_grammar_takes_no_broken_text(matcher: Make, case: Any, data: st.DataObject) -> None:
    contract, _, text = case
    heads = [contract.head(s) + contract.gap(s) for s in contract.sections]
    bits = st.sampled_from([*heads, *PIECES, " ", "\n", "\r\n", "\x0b", "- ", ""])
    start = data.draw(st.integers(0, len(text)))
    text = text[:start] + data.draw(bits) + text[start + data.draw(st.sampled_from([0, 1, 5])) :]
    clean = contract.read(text).adheres and not text.startswith(" ")
    assert matcher(contract).accepts(text) == clean


@pytest.mark.parametrize("contract", FORMS, ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(3))
def test_what_the_grammar_generates_reads_clean(matcher: Make, contract: Contract, seed: int) -> None:
    text = _generate(matcher(contract), random.Random(seed))
    reading = contract.read(text)
    assert reading.violations == () and contract.write(reading.record) == text


@given(contract=contracts, seed=st.integers(0, 10**6))
@settings(max_examples=30)
def test_what_a_generated_contract_generates_reads_clean(matcher: Make, contract: Contract, seed: int) -> None:
    assert contract.read(_generate(matcher(contract), random.Random(seed))).violations == ()


def _generate(matcher: Matcher, chance: random.Random) -> str:
    """A random walk through the grammar by ASCII bytes and PIECES, which likes to part words, lines and sections."""
    matcher.llama.llama_sampler_reset(matcher.sampler)
    tokens = [EOS, *range(FIRST_BYTE, FIRST_BYTE + 128), *range(FIRST_PIECE, FIRST_PIECE + len(PIECES))]
    partings = {EOS, FIRST_BYTE + ord(" "), FIRST_BYTE + ord("\n"), FIRST_PIECE}
    text = b""
    while len(text) < 20_000:
        allowed = matcher.allowed(tokens) or matcher.allowed(range(FIRST_BYTE + 128, FIRST_PIECE))  # within "Œdème"
        assert allowed, f"a dead end behind {text[-60:]!r}"
        preferred = [token for token in allowed if token in partings]
        token = chance.choice(preferred if preferred and chance.random() < 0.6 else allowed)
        if token == EOS:
            return text.decode()
        matcher.accept(token)
        text += PIECES[token - FIRST_PIECE].encode() if token >= FIRST_PIECE else bytes([token - FIRST_BYTE])
    raise AssertionError("the grammar never ended")


@pytest.mark.parametrize(
    ("min_words", "max_words", "words", "taken"),
    [
        (5, 60, 4, False),
        (5, 60, 5, True),
        (5, 60, 60, True),
        (5, 60, 61, False),
        (1, 5000, 5000, True),
        (1, 1, 2, False),
    ],
)
def test_word_bounds_are_in_the_grammar(
    vocabulary: Any, min_words: int, max_words: int, words: int, taken: bool
) -> None:
    section = {"name": "a", "title": "A", "kind": "prose", "min_words": min_words, "max_words": max_words}
    toml = 'name = "t"\nabout = "x"\nheading = "{title}: "\nseparator = "\\n"\n[[section]]\n'
    contract = load_text(toml + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items()))
    one = Matcher(vocabulary, contract.grammar())
    assert one.parsed and one.accepts("A: " + " ".join(["wörd"] * words)) == taken
    one.close()


def test_every_white_space_that_split_knows_parts_words_in_the_grammar(vocabulary: Any) -> None:
    one = Matcher(vocabulary, load_contract("terminology").grammar())
    answer = "**Definition**: a b c d e{}f\n\n**Explanation**: a b c d e f g h i j\n\n"
    answer += "**Clinical Relevance**: a b c d e f g h i j\n\n"
    answer += (
        "**Note**: This is educational information only. Always consult healthcare professionals for medical decisions."
    )
    spaces = [chr(code) for code in range(0x110000) if chr(code).isspace()]
    assert [space for space in spaces if one.accepts(answer.replace("{}", space))] == [" "]
    beside = {chr(ord(space) + step) for space in spaces for step in (-1, 1)} - {*spaces, "\0"}
    others = ["\x01", "\x7f", "\u180e", "\ufeff", '"', "\\", "]", "^", "°", "é", "中", "😀", "\U0010ffff", *beside]
    assert [char for char in others if not one.accepts(answer.replace("{}", char))] == []
    one.close()


@pytest.mark.parametrize("contract", SHIPPED, ids=lambda c: c.name)
def test_the_matcher_is_fast_on_the_longest_answer(vocabulary: Any, contract: Contract) -> None:
    started = time.process_time()
    one = Matcher(vocabulary, contract.grammar())
    text = _generate(one, random.Random(5))
    steps = len(text)
    one.accepts(text * 1)
    assert time.process_time() - started < 0.002 * steps + 0.5  # measured 0.1 ms a step
    one.close()


def test_a_grammar_that_llama_cpp_cannot_parse_is_noticed(vocabulary: Any) -> None:
    assert not Matcher(vocabulary, r'root ::= "\b"').parsed

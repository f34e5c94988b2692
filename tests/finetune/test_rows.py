"""finetune/rows.py: token ids and the loss mask, on the shipped tiny base's own tokenizer."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contract.base import load_base
from contract.contract import load_contract
from contract.example import Example
from finetune.rows import tokenize, tokenize_example, with_invented
from models.base_folder import find_base_folder
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError

BASE = load_base("tiny")
CONTRACT = load_contract("terminology")


def example(system: str = "", concept: str = "uremia") -> Example:
    words = f"{concept.capitalize()} is a state in which the blood holds too much waste that the kidneys should remove."
    note = CONTRACT.sections[-1].kind.text  # type: ignore[union-attr]
    record = {"definition": words, "explanation": words, "clinical_relevance": words, "note": note}
    return Example("t/0", concept, "c", f"What is {concept}?", system, record, CONTRACT.write(record), ("blood",))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(find_base_folder(BASE), BASE)


@pytest.mark.parametrize("system", ["", CONTRACT.system_prompt()])
def test_the_loss_is_on_the_response_only_and_its_last_token_is_the_stop(tokenizer: Any, system: str) -> None:
    row = tokenize_example(example(system), BASE, tokenizer)
    trained = [i for i, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if kept]
    assert tokenizer.decode(trained) == " " + example().response + "</s>"
    assert trained[-1] == tokenizer.convert_tokens_to_ids("</s>")
    masked = [i for i, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if not kept]
    assert masked[0] == tokenizer.bos_token_id and masked.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(masked[1:]) == BASE.prompt(example(system).messages())


def test_a_row_is_what_sentencepiece_itself_gives(tokenizer: Any) -> None:
    import sentencepiece

    reference = sentencepiece.SentencePieceProcessor(model_file=str(find_base_folder(BASE) / "tokenizer.model"))
    row = tokenize_example(example(), BASE, tokenizer)
    start, end = reference.piece_to_id("[INST]"), reference.piece_to_id("[/INST]")
    wanted = [1, start, *reference.encode(" What is uremia?"), end, *reference.encode(" " + example().response), 2]
    assert row["input_ids"] == wanted


def test_padding_is_not_the_stop(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.unk_token_id != tokenizer.eos_token_id


def test_a_space_that_the_tokenizer_puts_ahead_of_a_text_is_not_put_ahead_of_the_answer() -> None:
    """As TinyLlama has it: the answer follows a line break, and so its first word has no space."""
    base = load_base("tinyllama_1_1b_chat_v1_0")
    tokenizer = load_tokenizer(find_base_folder(BASE), base)
    row = tokenize_example(example(), base, tokenizer)
    trained = [i for i, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if kept]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"])[:2] == ["<s>", "▁<"]
    assert tokenizer.convert_ids_to_tokens(trained)[0][0] != "▁"
    assert "".join(tokenizer.convert_ids_to_tokens(trained)).startswith("**Definition**:")


def test_a_row_that_is_too_long_is_an_error_that_names_it(tokenizer: Any) -> None:
    length = len(tokenize_example(example(), BASE, tokenizer)["input_ids"])
    assert len(tokenize([example()], BASE, tokenizer, length)) == 1
    with pytest.raises(UserError, match=rf"1 of 1 rows are longer.*t/0 \({length}\).*max_length={length}"):
        tokenize([example()], BASE, tokenizer, length - 1)


def test_a_base_that_parts_prompt_and_answer_inside_a_token_is_refused(tokenizer: Any) -> None:
    broken = dataclasses.replace(BASE, user_turn="{system}{content} The ans", assistant_turn="wer is {content}</s>")
    with pytest.raises(UserError, match="across the border of prompt and answer"):
        tokenize_example(example(), broken, tokenizer)


def test_invented_names_replace_the_concept_everywhere_and_leave_the_rest() -> None:
    rows = with_invented(CONTRACT, [example()] * 4, 0.5, seed=1)
    assert rows[:4] == [example()] * 4 and len(rows) == 6
    for row in rows[4:]:
        assert "uremia" not in (row.request + row.response).lower()
        assert row.concept in row.request and row.concept.lower() in row.response.lower()
        assert row.response == CONTRACT.write(row.record)
    assert with_invented(CONTRACT, [example()] * 4, 0.5, seed=1) == rows


def test_an_invented_name_changes_no_heading_and_no_fixed_text() -> None:
    plain = example(concept="note")
    words = plain.record["definition"]
    note = example(concept="decisions")  # a word of the fixed text
    for row in with_invented(CONTRACT, [plain, note], 1.0, seed=1)[2:]:
        assert row.response == CONTRACT.write(row.record) and row.record["note"] == plain.record["note"]
        assert row.concept.lower() in row.record["definition"].lower() and words not in row.response


def test_a_copy_that_the_contract_refuses_is_left_out() -> None:
    words = "uremia " * 59 + "ends."  # two words for each would be too many
    record = example().record | {"definition": words}
    long = dataclasses.replace(example(), record=record, response=CONTRACT.write(record))
    rows = with_invented(CONTRACT, [long] * 40, 1.0, seed=1)
    assert 40 < len(rows) < 80 and all(row.response == CONTRACT.write(row.record) for row in rows)

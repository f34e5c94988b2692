"""On a real Ollama with random weights: the schema is taken and held, and a run without one sound answer ends as said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from contract.contract import Contract
from data_gen.teacher.checks import REASONS
from data_gen.teacher.prompt import answer_schema, body, messages, taught_sections
from data_gen.teacher.teach import teach
from models.ollama_server import Server
from plumbing.errors import UserError
from quantize.register import register
from tests.conftest import make_small_adapter, make_small_base
from tests.eval.parity.test_parity import make_model
from tests.fake_ollama import CONTRACT, make_drafts
from tests.strategies import FORMS

MODEL = "random-teacher"
DRAFTS = make_drafts(3)


@pytest.fixture(scope="module")
def url(ollama: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An Ollama that has a model of random weights and room for the prompt."""
    folder = tmp_path_factory.mktemp("teacher")
    base = make_small_base(folder / "base", max_position_embeddings=4096)
    register(make_model(make_small_adapter(base, folder / "adapter"), folder / "model"), MODEL, Server(ollama))
    return ollama


def short(schema: Any) -> Any:
    """The schema with an upper bound to each text, or random weights would not come to an end."""
    if not isinstance(schema, dict):
        return schema
    bound = {"maxLength": 12} if schema.get("type") == "string" else {}
    return {key: short(value) for key, value in schema.items()} | bound


@pytest.mark.parametrize(
    "contract", [form for form in FORMS if taught_sections(form)], ids=lambda contract: contract.name
)
def test_ollama_takes_the_schema_and_holds_it(url: str, contract: Contract) -> None:
    schema = answer_schema(contract)
    for seed in range(3):
        request = body(MODEL, [{"role": "user", "content": "Explain uremia."}], short(schema), str(seed), 0)
        answer = httpx.post(f"{url}/api/chat", json=request, timeout=120)
        assert answer.status_code == 200, answer.text
        assert answer.json()["done_reason"] == "stop"
        value = json.loads(answer.json()["message"]["content"])
        jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
        assert list(value) == [section.name for section in taught_sections(contract)]


def test_random_weights_teach_nothing_and_every_row_says_why(url: str, tmp_path: Path) -> None:
    journal, texts = tmp_path / "journal", []
    for _ in range(2):
        with pytest.raises(
            UserError, match=rf"teacher '{MODEL}': none of 3 rows was accepted, most often for [A-Z_]+ "
        ):
            teach(CONTRACT, DRAFTS, MODEL, journal, url=url, attempts=2)
        texts.append(journal.read_text())
    assert texts[0] == texts[1], "a finished journal asks nothing"
    rows = [json.loads(line) for line in texts[0].splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(draft.id for _, draft in DRAFTS)
    for row in rows:
        assert row["record"] is None and len(row["rejections"]) == 2
        assert {rejection["reason"] for rejection in row["rejections"]} <= set(REASONS)


def test_a_fact_that_does_not_fit_into_the_context_is_told_from_a_bad_answer(url: str, tmp_path: Path) -> None:
    fact, draft = DRAFTS[0]
    long = dataclasses.replace(fact, texts={"definition": "urea " * 8000})
    with pytest.raises(UserError, match=r"most often for PROMPT_TOO_LONG \(the prompt does not fit"):
        teach(CONTRACT, [(long, draft)], MODEL, tmp_path / "journal", url=url)


def test_a_model_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model 'nobody'; `ollama pull nobody` fetches it"):
        teach(CONTRACT, DRAFTS, "nobody", tmp_path / "journal", url=url)


def test_the_prompt_fits_into_its_context_with_room_for_two_answers(url: str) -> None:
    turns = messages(CONTRACT, *DRAFTS[0], list(DRAFTS[0][1].keywords), CONTRACT.sections[0])
    request = body(MODEL, turns, answer_schema(CONTRACT), "row", 0)
    request["options"] |= {"num_predict": 1}
    tokens = httpx.post(f"{url}/api/chat", json=request, timeout=120).json()["prompt_eval_count"]
    assert 300 < tokens < 4096 - 2 * 1024

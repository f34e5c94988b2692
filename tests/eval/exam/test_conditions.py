"""Who tells the model the form, and what it is shown first: as sent, and as the real Ollama and llama.cpp render it."""

from collections import Counter
from pathlib import Path

import pytest

from contract.contract import load_contract
from contract.example import Example, read_examples
from eval.exam.asking import ask_all, conversations, plan
from eval.exam.conditions import CONDITIONS, conversation, few_shots
from eval.exam.temperatures import rates_by_temperature
from eval.judge.answer_row import AnswerRow
from models.answers import Answer, Backend, Request
from models.embedded import read_served
from models.ollama_server import Server
from models.options import DEFAULTS, KINDS, own_options, read_settings
from plumbing.errors import UserError
from quantize.register import register
from tests.eval.judge.test_verdict import CLEAN, EXAMPLE
from tests.eval.parity.test_parity import make_model
from tests.eval.test_adherence import data as data  # the fixtures
from tests.eval.test_adherence import examples as examples

EMPTY = {"role": "system", "content": ""}
SPEC = load_contract("terminology").system_prompt()


@pytest.fixture(scope="module")
def train(data: Path) -> list[Example]:
    return read_examples(data / "train.jsonl", load_contract(data / "task.toml"))


def test_what_each_condition_sends() -> None:
    user, told = (
        {"role": "user", "content": EXAMPLE.request},
        {"role": "user", "content": f"{SPEC}\n\n{EXAMPLE.request}"},
    )
    sent = {condition: conversation(condition, SPEC, [], EXAMPLE) for condition in CONDITIONS}
    assert sent == {
        "served": (user,), "system": ({"role": "system", "content": SPEC}, user), "user": (EMPTY, told), "none": (EMPTY, user)
    }  # fmt: skip


def test_shots_stand_between_system_and_request(train: list[Example]) -> None:
    shots = train[:2]
    turns = conversation("user", SPEC, shots, EXAMPLE)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [turn["content"] for turn in turns[1:5]] == [t for s in shots for t in (s.request, s.response)]
    assert turns[-1]["content"].startswith(SPEC), "the form is told where it is asked for"
    assert len(conversation("served", SPEC, shots, EXAMPLE)) == 5


def test_shots_are_of_other_concepts_and_even(train: list[Example], examples: list[Example]) -> None:
    shots = few_shots(train, examples, 5)
    assert len({shot.category for shot in shots}) == len({shot.concept for shot in shots}) == 5
    assert shots == few_shots(train, examples[:3], 5), "the same for every request"
    own = [shot for shot in train if shot.concept == shots[0].concept]
    again = few_shots(train, own, 5)
    assert len(again) == 5 and shots[0].concept not in {shot.concept for shot in again}
    assert few_shots(train, examples, 0) == few_shots(own, own, 4) == []


def test_the_real_ollama_and_llama_cpp_are_told_as_meant(ollama: str, small_adapter: Path, tmp_path: Path) -> None:
    folder = make_model(small_adapter, tmp_path / "model")
    register(folder, "conditions", Server(ollama))
    served, server = read_served(folder), Server(ollama)
    spec, request = served.system, EXAMPLE.request
    told = f"{spec}\n\n{request}"
    expected = {"served": told, "system": f"FORM\n\n{request}", "user": told, "none": request}
    for condition in CONDITIONS:
        turns = conversation(condition, "FORM" if condition == "system" else spec, [], EXAMPLE)
        body = {"model": "conditions", "messages": list(turns), "stream": False, "_debug_render_only": True}
        rendered = server.call("/api/chat", body)["_debug_info"]["rendered_template"]
        assert rendered == served.prompt(turns) == f"[INST] {expected[condition]}[/INST]"


def judged(examples: list[Example], temperatures: list[float], repeats: int, ask: object) -> list[AnswerRow]:
    contract = load_contract("terminology")
    questions = plan(conversations(contract, "served", [], examples), "served", temperatures, repeats, 40)
    return ask_all(contract, Backend("ollama", "m", ask, dict), questions, 3)  # type: ignore[arg-type]


def test_repeats_and_temperatures_are_all_asked(examples: list[Example]) -> None:
    sent: list[Request] = []
    judged(examples[:3], [0.0, 0.7], 2, lambda request: sent.append(request) or Answer("x"))  # type: ignore[func-returns-value]
    draws = Counter((r.options["temperature"], r.options["seed"], r.repeat) for r in sent)
    assert draws == {(0.0, 40, 0): 3, (0.0, 41, 1): 3, (0.7, 40, 0): 3, (0.7, 41, 1): 3}


def test_each_temperature_has_its_rates_with_pass_k() -> None:
    """At 0 every answer is clean; at 0.7 every first one of two."""

    def ask(request: Request) -> Answer:
        return Answer(CLEAN if request.options["temperature"] == 0 or request.repeat == 0 else "no")

    rows = [Example(**{**vars(EXAMPLE), "id": str(n), "concept": str(n)}) for n in range(4)]
    cold, warm = rates_by_temperature(judged(rows, [0.0, 0.7], 2, ask), 2)
    assert (cold.temperature, cold.attempted, cold.adherence.share) == (0.0, 8, 1.0)
    assert (warm.temperature, warm.adherence.share, warm.judged, warm.failed) == (0.7, 0.5, 8, 0)
    assert [p.share for p in cold.pass_k] == [1.0, 1.0] and [p.share for p in warm.pass_k] == [0.5, 0.0]
    assert "50.0 %" in str(warm) and "pass^2 0.0 %" in str(warm)


def test_a_models_own_parameters_are_sent_but_for_temperature_and_seed() -> None:
    own = own_options({"num_ctx": (1024.0,), "stop": ("</s>", "[INST]"), "temperature": (0.7,), "seed": (5.0,),
                       "top_k": (10.0,), "num_gpu": (1.0,)}, 512)  # fmt: skip
    assert own == DEFAULTS | {"num_ctx": 1024, "stop": ["</s>", "[INST]"], "top_k": 10}
    assert own_options({}, 512)["num_ctx"] == 512 and own_options({}, 9999)["num_ctx"] == 4096
    assert own_options({"num_predict": (-1.0,)})["num_predict"] == 512, "an answer must end"
    assert DEFAULTS.keys() == KINDS.keys()
    with pytest.raises(UserError, match="num_ctx is 'much'"):
        own_options({"num_ctx": ("much",)})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("num_cts=1", "unknown key 'num_cts' \\(did you mean 'num_ctx'"),
        ("num_ctx", "is not KEY=VALUE"),
        ("num_ctx=much", "is not KEY=VALUE"),
        ("num_ctx=1.5", "expected int"),
        ("num_ctx=true", "expected int"),
        ("num_ctx=1", "expected 8 or more"),
        ("num_predict=-1", "expected 1 or more"),
        ("repeat_penalty=0", "expected more than 0"),
        ("stop='</s>'", "expected texts in"),
        ("stop=['']", "expected texts in"),
        ("temperature=1", "--temperatures"),
    ],
)
def test_a_wrong_setting_is_named(given: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_settings(["top_k=3", given])

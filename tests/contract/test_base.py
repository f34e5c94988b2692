"""One Base spec, three renderings: training text, Hugging Face chat template, token ids equal to mistral-common's."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contract.base import BASES, Base, Message, load_base
from plumbing.errors import UserError
from tests import strategies  # noqa: F401  the hypothesis profile
from tests.conftest import make_tokenizer

TINY = load_base("tiny")
# Each has white space at its seams: Ollama's `{{-` would eat it.
OWN_TURN = load_base("tinyllama_1_1b_chat_v1_0")
FIRST_USER = load_base("llama_2_7b_chat")
GEMMA_2B = load_base("gemma_2b_it")
GEMMA = dataclasses.replace(
    TINY, name="gemma", system="last_user", user_turn='<start_of_turn>"user"\n{system}{content}<end_of_turn>\n',
    assistant_turn="<start_of_turn>model\n{content}<end_of_turn>\n", generation_prompt="<start_of_turn>model\n",
    stop="<end_of_turn>",
)  # fmt: skip
SPECS = [TINY, OWN_TURN, FIRST_USER, GEMMA_2B, GEMMA]


def talk(*turns: str) -> list[Message]:
    """`talk("s:Be kind.", "u:Hi")` as messages."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]


PROMPTS = [
    (TINY, talk("u:Hi"), "[INST] Hi[/INST]"),
    (TINY, talk("s:Be kind.", "u:Hi"), "[INST] Be kind.\n\nHi[/INST]"),
    (TINY, talk("s:S", "u:A", "a:B", "u:C"), "[INST] A[/INST] B</s>[INST] S\n\nC[/INST]"),
    (TINY, talk("s:S", "u:A", "a:B"), "[INST] S\n\nA[/INST] B</s>"),
    (TINY, talk("s:S", "s:T", "u:A", "u:B"), "[INST] S\n\nT\n\nA\n\nB[/INST]"),
    (TINY, talk("u:{content}", "s:{system}"), "[INST] {system}\n\n{content}[/INST]"),
    (OWN_TURN, talk("s:S", "u:A"), "<|system|>\nS</s>\n<|user|>\nA</s>\n<|assistant|>\n"),
    (OWN_TURN, talk("u:A", "a:B"), "<|user|>\nA</s>\n<|assistant|>\nB</s>\n"),
    (FIRST_USER, talk("u:A"), "<s>[INST] A [/INST]"),
    (
        FIRST_USER,
        talk("s:S", "u:A", "a:B", "u:C"),
        "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST]",
    ),
    (FIRST_USER, talk("u:A", "a:B"), "<s>[INST] A [/INST] B </s>"),
    (
        GEMMA_2B,
        talk("s:S", "u:A", "a:B", "u:C"),
        "<start_of_turn>user\nS\n\nA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n"
        "<start_of_turn>user\nC<end_of_turn>\n<start_of_turn>model\n",
    ),
    (GEMMA, talk("u:A"), '<start_of_turn>"user"\nA<end_of_turn>\n<start_of_turn>model\n'),
    (GEMMA, [], "<start_of_turn>model\n"),
]


@pytest.mark.parametrize(("base", "messages", "expected"), PROMPTS, ids=range(len(PROMPTS)))
def test_the_prompt_of_each_placement(base: Base, messages: list[Message], expected: str) -> None:
    assert base.prompt(messages) == expected


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown role 'tool' \(roles: system, user, assistant\)"):
        TINY.prompt([{"role": "tool", "content": "x"}])


TRICKY = ["", " ", "Hi", " edge ", "two\nlines\n", "{{ x }}", "{content}", "{system}", "[/INST]", "é😀\u2028"]
texts = st.sampled_from([*TRICKY, "a</s>b", "a<end_of_turn>"]) | st.text()
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": texts}), max_size=7
)


def render(template: str, turns: list[Message], **variables: Any) -> str:
    """As transformers and llama.cpp set Jinja up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    return environment.from_string(template).render(messages=turns, **variables)


@pytest.mark.parametrize("base", SPECS, ids=lambda base: base.name)
@given(turns=messages)
def test_the_chat_template_renders_the_prompt(base: Base, turns: list[Message]) -> None:
    assert render(base.chat_template(), turns, add_generation_prompt=True) == base.prompt(turns)


@pytest.mark.parametrize("base", SPECS, ids=lambda base: base.name)
@given(turns=messages.filter(lambda turns: not turns or turns[-1]["role"] != "assistant"), answer=texts)
def test_prompt_and_completion_are_the_conversation_up_to_its_stop(
    base: Base, turns: list[Message], answer: str
) -> None:
    if base.stop in answer:
        with pytest.raises(UserError, match="holds the stop text"):
            base.completion(answer)
        return
    completion = base.completion(answer)
    assert completion.endswith(base.stop) and completion.count(base.stop) == 1
    whole = base.prompt([*turns, {"role": "assistant", "content": answer}])
    assert whole.startswith(base.prompt(turns) + completion)
    assert whole.removeprefix(base.prompt(turns) + completion).strip() == ""


def test_the_generation_prompt_is_the_callers_to_ask_for() -> None:
    assert render(OWN_TURN.chat_template(), talk("u:A"), add_generation_prompt=False) == "<|user|>\nA</s>\n"


# A reading of Go's text/template for the few actions that our TEMPLATE uses, so that white space at the seams is seen
# without a server; tests/test_parity.py asks the real one.
def go_render(template: str, turns: list[Message]) -> str:
    assert "{{-" not in template and "-}}" not in template
    pieces = re.split(r"(\{\{.*?\}\})", template)
    swaps = {
        "{{ $first := -1 }}": "{% set v = namespace(first=-1, last=-1, open=true) %}",
        "{{ $last := -1 }}": "", "{{ $open := true }}": "",
        "{{ range $i, $m := .Messages }}": "{% for m in messages %}{% set i = loop.index0 %}",
        '{{ if eq $m.Role "user" }}': "{% if m.role == 'user' %}",
        '{{ else if eq $m.Role "assistant" }}': "{% elif m.role == 'assistant' %}",
        "{{ if eq $first -1 }}": "{% if v.first == -1 %}",
        "{{ $first = $i }}": "{% set v.first = i %}", "{{ $last = $i }}": "{% set v.last = i %}",
        '{{ $open = ne $m.Role "assistant" }}': "{% set v.open = m.role != 'assistant' %}",
        "{{ if $open }}": "{% if v.open %}", "{{ if .System }}": "{% if system %}",
        "{{ if and $.System (eq $i $first) }}": "{% if system and i == v.first %}",
        "{{ if and $.System (eq $i $last) }}": "{% if system and i == v.last %}",
        "{{ $.System }}": "{{ system }}", "{{ $m.Content }}": "{{ m.content }}",
    }  # fmt: skip
    blocks, jinja = [], ""
    for piece in pieces:
        if piece.startswith(("{{ range", "{{ if")):
            blocks.append("{% endfor %}" if "range" in piece else "{% endif %}")
        jinja += blocks.pop() if piece == "{{ end }}" else swaps[piece] if piece.startswith("{{") else piece
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    merged: list[Message] = []
    for turn in turns:  # as Ollama collates before it renders
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {"role": turn["role"], "content": merged[-1]["content"] + "\n\n" + turn["content"]}
        else:
            merged.append(turn)
    environment = ImmutableSandboxedEnvironment(keep_trailing_newline=True)
    return environment.from_string(jinja).render(messages=merged, system=system)


@pytest.mark.parametrize("base", SPECS, ids=lambda base: base.name)
@given(turns=messages)
def test_ollamas_template_renders_the_prompt(base: Base, turns: list[Message]) -> None:
    assert go_render(base.ollama_template(), turns) == base.prompt(turns)


@pytest.fixture(scope="module")
def mistral_v3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The Hugging Face tokenizer of Mistral's own v3 file, and mistral-common's reference on the same file."""
    import mistral_common
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from transformers import LlamaTokenizer

    model = Path(mistral_common.__file__).parent / "data/mistral_instruct_tokenizer_240323.model.v3"
    folder = tmp_path_factory.mktemp("mistral_v3")
    make_tokenizer(folder)  # for its configuration
    shutil.copyfile(model, folder / "tokenizer.model")
    return LlamaTokenizer.from_pretrained(folder, legacy=False), MistralTokenizer.from_file(str(model))


def reference(tokenizer: Any, turns: list[Message]) -> list[int]:
    from mistral_common.protocol.instruct import messages as kinds
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    made = {"system": kinds.SystemMessage, "user": kinds.UserMessage, "assistant": kinds.AssistantMessage}
    request = ChatCompletionRequest(messages=[made[turn["role"]](content=turn["content"]) for turn in turns])
    return list(tokenizer.encode_chat_completion(request).tokens)


CONVERSATIONS = [
    talk("u:Explain the medical term: Hypertension"),
    talk("s:You explain medical terms.", "u:What is edema?"),
    talk("s:You explain.", "u:What is edema?", "a:Swelling.", "u:And ascites?"),
    talk("u:A", "a:B", "u:C", "a:D", "u:E"),
    talk("s:One.\n**Note**: text", "u:Line one\nline two\n\nline four"),
    talk("u:Ödem, œdème, 浮腫 und 😀 – «x» °C ≥ 5 µg"),
    talk("u:a space at the end "),
    talk("u:tabs\tand\r\nreturns"),
    talk("u:one", "u:two"),
    talk("s:S", "s:T", "u:x"),
    talk("u:" + "long words repeat " * 200 + "end"),
    talk("u:{{ .System }} {content} \"quoted\" \\ 'single'"),
    talk("u:1234567890 3.5 mmol/L"),
]


@pytest.mark.parametrize("name", ["tiny", "mistral_7b_instruct_v0_3"])
@pytest.mark.parametrize("turns", CONVERSATIONS, ids=range(len(CONVERSATIONS)))
def test_token_ids_are_mistrals_own(mistral_v3: tuple[Any, Any], turns: list[Message], name: str) -> None:
    tokenizer, common = mistral_v3
    base = load_base(name)
    ids = tokenizer.encode(base.prompt(turns), add_special_tokens=False)
    assert base.add_bos and [tokenizer.bos_token_id, *ids] == reference(common, turns)


def test_runs_of_spaces_are_the_one_known_difference(mistral_v3: tuple[Any, Any]) -> None:
    """Hugging Face (and llama.cpp) take `▁▁` as one piece behind a control token, SentencePiece does not: same text."""
    tokenizer, common = mistral_v3
    turns = talk("u: a space at the start")
    ids = tokenizer.encode(TINY.prompt(turns), add_special_tokens=False)
    expected = reference(common, turns)[1:]
    assert ids != expected and tokenizer.decode(ids) == tokenizer.decode(expected)


def test_the_answers_ids_are_mistrals_own(mistral_v3: tuple[Any, Any]) -> None:
    tokenizer, common = mistral_v3
    answer = "**Definition**: Swelling.\n\n**Note**: Ask a doctor."
    turns = talk("s:Be kind.", "u:What is edema?")
    trained = tokenizer.encode(TINY.prompt(turns) + TINY.completion(answer), add_special_tokens=False)
    more = reference(common, [*turns[1:], *talk(f"a:{answer}", "u:x")])
    end = len(trained) - trained[::-1].index(4)  # behind [/INST]
    behind = len(more) - more.index(4) - 1
    assert trained[-1] == tokenizer.eos_token_id == 2
    assert trained[end:] == more[-behind:][: len(trained) - end]


def test_transformers_renders_the_template_to_the_same_ids(mistral_v3: tuple[Any, Any]) -> None:
    tokenizer, common = mistral_v3
    tokenizer.chat_template = TINY.chat_template()
    for turns in CONVERSATIONS:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert text == TINY.prompt(turns)
        assert [1, *tokenizer.encode(text, add_special_tokens=False)] == reference(common, turns)


GOOD = (BASES / "tiny.toml").read_text(encoding="utf-8")
BAD_BASES = [
    ('stop = "</s>"', 'stopp = "</s>"', ["unknown key 'stopp' (did you mean 'stop'?)", "missing key 'stop'"]),
    ('stop = "</s>"', 'stop = "<end>"', ["'stop' must appear in 'assistant_turn' after {content}"]),
    ('stop = "</s>"', 'stop = ""', ["'stop' must appear in"]),
    (
        'system = "last_user"',
        'system = "first"',
        ["'system' is 'first', expected one of own_turn, first_user, last_user"],
    ),
    ('system = "last_user"', 'system = "own_turn"', ["'user_turn' must hold no {system}"]),
    (
        '"[INST] {system}{content}[/INST]"',
        '"[INST] {content}[/INST]"',
        ["'user_turn' must hold {system} once, before {content}"],
    ),
    (
        '"[INST] {system}{content}[/INST]"',
        '"{content}{system}"',
        ["'user_turn' must hold {system} once, before {content}"],
    ),
    ('"[INST] {system}{content}[/INST]"', '"{system}"', ["'user_turn' must hold {content} once"]),
    ('" {content}</s>"', '" {{ x }}{content}</s>"', ["'assistant_turn' holds another brace"]),
    ('" {content}</s>"', '"{{content}</s>"', ["'assistant_turn' holds another brace"]),
    ('"{system}\\n\\n"', '"{system}{system}"', ["'system_text' must hold {system} once"]),
    ('generation_prompt = ""', 'generation_prompt = "x"', ["must be the beginning of 'assistant_turn'"]),
    ('generation_prompt = ""', 'generation_prompt = " {content}"', ["'generation_prompt' holds another brace"]),
    ("context_length = 1024", "context_length = 0", ["'context_length' is 0"]),
    ("frequency_penalty = 0.5", "frequency_penalty = -0.1", ["'frequency_penalty' is -0.1, expected 0"]),
    ("add_bos = true", "add_bos = 1", ["'add_bos' is 1, expected bool"]),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD_BASES, ids=range(len(BAD_BASES)))
def test_a_bad_base_gets_one_line(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    path = tmp_path / "my.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_base(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert [part for part in said if part not in str(caught.value)] == []


def test_every_shipped_base_loads_under_its_own_name() -> None:
    assert {path.stem for path in BASES.glob("*.toml")} == {load_base(path.stem).name for path in BASES.glob("*.toml")}
    with pytest.raises(UserError, match=r"no such base \(shipped: gemma_2b_it, llama_2_7b_chat, mistral"):
        load_base("mistral")

"""quantize.modelfile: one dict of fields; what a Modelfile cannot carry is refused; every value stands in the text."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contract.base import load_base
from contract.contract import load_contract
from plumbing.errors import UserError
from quantize.modelfile import fields, render

CONTRACT, BASE = load_contract("terminology"), load_base("tiny")


def changed(**changes: Any) -> Any:
    """The fields with single values replaced; `stop` and the like go into the parameters."""
    values = fields(CONTRACT, BASE)
    parameters = values["parameters"] | {key: value for key, value in changes.items() if key in values["parameters"]}
    return values | {key: value for key, value in changes.items() if key in values} | {"parameters": parameters}


def test_every_field_stands_in_the_text() -> None:
    values = fields(CONTRACT, BASE)
    lines = render(values, "model.q4_k_m.gguf").splitlines()
    text = "\n".join(lines)
    assert "FROM ./model.q4_k_m.gguf" in lines
    for keyword in ("template", "system", "license"):
        assert f'{keyword.upper()} """{values[keyword]}"""' in text
    parameters = [line for line in lines if line.startswith("PARAMETER ")]
    assert parameters == [
        'PARAMETER stop "</s>"', "PARAMETER temperature 0.0", "PARAMETER top_p 0.9", "PARAMETER repeat_penalty 1.0",
        "PARAMETER frequency_penalty 0.5",
        "PARAMETER seed 0", "PARAMETER num_ctx 1024", "PARAMETER num_predict 512",
    ]  # fmt: skip
    assert "<<" not in text and "<%" not in text


@pytest.mark.parametrize(("trained", "served"), [(1024, 1024), (4096, 4096), (32768, 4096)])
def test_context_is_never_longer_than_the_base_was_trained_on(trained: int, served: int) -> None:
    base = dataclasses.replace(BASE, context_length=trained)
    assert fields(CONTRACT, base)["parameters"]["num_ctx"] == served


@pytest.mark.parametrize(
    "card", ["huggingface.co/me/terms", "https://", "https://x\nSYSTEM y", "ftp://x", "http://a b"]
)
def test_a_card_that_is_no_address_is_refused(card: str) -> None:
    assert (
        "Model card: https://huggingface.co/me/terms"
        in fields(CONTRACT, BASE, "https://huggingface.co/me/terms")["license"]
    )
    with pytest.raises(UserError, match=r"--card: .* is not an address; expected one such as https://huggingface"):
        fields(CONTRACT, BASE, card)


def test_two_stops_are_two_lines() -> None:
    assert 'PARAMETER stop "</s>"\nPARAMETER stop "[INST]"\n' in render(changed(stop=["</s>", "[INST]"]), "m.gguf")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"system": 'say """ and more'}, 'system holds """'),
        ({"template": 'a"""\nPARAMETER num_ctx 1'}, 'template holds """'),
        ({"system": "no\u00a0break"}, "system holds U+00A0"),
        ({"system": "join\u200ded"}, "system holds U+200D"),
        ({"system": "wide\u3000space"}, "system holds U+3000"),
        ({"license": "bell\x07"}, "license holds U+0007"),
        ({"system": "line\r\nend"}, "system holds U+000D"),
        ({"template": "\ufeffmark"}, "template holds U+FEFF"),
        ({"stop": ['"']}, "stop 1 is '\"'"),
        ({"stop": ["</s>", "a\nb"]}, "stop 2 is 'a\\nb'"),
        ({"stop": [""]}, "stop 1 is ''"),
        ({"stop": ["\u00a0"]}, "stop 1 holds U+00A0"),
        ({"system": '"""', "license": "\x00"}, "2 faults"),
    ],
)
def test_what_a_modelfile_cannot_carry_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as error:
        render(changed(**changes), "m.gguf")
    assert told in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        'ends in "quotes"',
        '"begins',
        'two "" here',
        "tab\there",
        "Ménière 漢字 🫀",
        " edges ",
        "",
        "# no comment",
        "<< x >> <% y %>",
    ],
)
def test_what_it_can_carry_is_carried_unchanged(text: str) -> None:
    assert f'SYSTEM """{text}"""' in render(changed(system=text), "m.gguf")

"""finetune/config.py: presets and overrides, all faults at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from finetune.config import PRESETS, RANGES, Settings, load_settings, parse_overrides
from plumbing.errors import UserError


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_shipped_preset_loads(preset: str) -> None:
    assert load_settings(preset, []).base


def test_mistral_7b_is_what_the_readme_says() -> None:
    settings = load_settings("mistral_7b", [])
    assert (settings.base, settings.load_in_4bit) == ("mistral_7b_instruct_v0_3", True)
    assert (settings.lora_r, settings.lora_alpha, settings.epochs, settings.learning_rate) == (32, 32, 5, 3e-4)
    assert (settings.batch, settings.accumulation, settings.schedule, len(settings.target_modules)) == (
        2,
        4,
        "cosine",
        7,
    )


def test_overrides_are_toml_and_win_over_the_preset() -> None:
    settings = load_settings(
        "tiny", ["max_steps=7", "engine=peft", 'target_modules=["q_proj"]', "learning_rate = 1e-3"]
    )
    assert (settings.max_steps, settings.engine, settings.target_modules) == (7, "peft", ["q_proj"])
    assert settings.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("lines", "overrides", "wanted"),
    [
        ('base = "tiny"\nlora_rr = 3\nbatch = "8"\n', [], ["did you mean 'lora_r'", "'batch' is '8'"]),
        ("lora_r = 3\n", [], ["missing key 'base'"]),
        (
            'base = "tiny"\n',
            ["batch=0", "engine=jax", "warmup=2"],
            ["'batch' is 0", "'engine' is 'jax'", "'warmup' is 2"],
        ),
        ('base = "tiny"\n', ["epochs=0"], ["leave no step"]),
        ('base = "tiny"\n', ["parallel=zero"], ["'parallel' is 'zero', expected one of ddp, fsdp"]),
        (
            'base = "tiny"\nparallel = "fsdp"\n',
            ["load_in_4bit=true", "engine=unsloth"],
            ["set load_in_4bit=false", "set engine=peft"],
        ),
        ('base = "tiny"\n', ["nonsense"], ["expected key=value"]),
        ('base = "tiny"\n', ["=1"], ["--set =1: expected key=value"]),
        ('base = "tiny"\n', ["seed=-1", "batch=1\nlora_r=2"], ["my.toml with --set: ", "'batch' is '1"]),
        (
            'base = "tiny"\n',
            ["seed=-1", "schedule=cosin"],
            ["'seed' is -1, expected 0 to", "'cosin', expected one of cosine"],
        ),
        ('base = "tiny"\n', ["target_modules=q_proj"], ["'target_modules' is 'q_proj', "]),
        ('base = "tiny"\n', ["target_modules=[]"], ["'target_modules' is [], expected some of q_proj"]),
        ('base = "tiny"\n', ['target_modules=["q_proj", "nope"]'], ["expected some of q_proj"]),
        ('base = "tiny"\n', ["learning_rate=0"], ["'learning_rate' is 0, expected more"]),
        ('base = "tiny"\n', ["batch=" + "9" * 5000], ["'batch' is '999"]),
        ('base = "tiny"\n', ["batch=" + "[" * 5000], ["'batch' is '[[["]),
        ("base = [", [], ["not valid TOML"]),
    ],
)
def test_all_faults_of_a_preset_are_told_at_once(
    tmp_path: Path, lines: str, overrides: list[str], wanted: list[str]
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(lines)
    with pytest.raises(UserError) as error:
        load_settings(str(path), overrides)
    assert [text for text in wanted if text not in str(error.value)] == []


@pytest.mark.parametrize("key", sorted(RANGES))
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", str(10**30), "-2"])
def test_no_number_is_taken_that_cannot_be_meant(key: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"tiny.toml with --set: '{key}' is "):
        load_settings("tiny", [f"{key}={value}"])


def test_every_number_of_the_settings_has_a_range() -> None:
    numbers = {field.name for field in dataclasses.fields(Settings) if field.type in ("int", "float")}
    assert numbers == RANGES.keys()
    assert all(least <= getattr(Settings("tiny"), key) <= most for key, (least, most) in RANGES.items())


def test_an_unknown_preset_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="mistral_7b, smollm2, tiny"):
        load_settings("tinny", [])


def test_a_bare_word_is_text() -> None:
    assert parse_overrides(["a=b c", "n=1.5", "f=true"]) == {"a": "b c", "n": 1.5, "f": True}

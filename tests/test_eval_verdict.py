import re
from pathlib import Path

import pytest

from contract.contract import Violation, load_contract
from contract.example import Example
from eval.backends import REPEATED, Answer, failed
from eval.verdict import CLASSES, judge, mentions, primary

ROOT = Path(__file__).parent.parent
CONTRACT = load_contract("terminology")
NOTE = "This is educational information only. Always consult healthcare professionals for medical decisions."
RECORD = {
    "definition": "Uremia is a build-up of urea and other wastes in the blood.",
    "explanation": "Failing kidneys no longer clear urea, creatinine and other products, so they rise in plasma.",
    "clinical_relevance": "Patients feel sick and itch; severe uremia causes confusion and calls for dialysis.",
    "note": NOTE,
}
CLEAN = CONTRACT.write(RECORD)
EXAMPLE = Example(
    "u/0", "uremia", "disease_mechanisms", "What is uremia?", "", RECORD, CLEAN, ("urea", "dialysis", "rash")
)

FAULTS = {
    "nothing": ("", "stop", "EMPTY_ANSWER"),
    "only white space": (" \n ", "stop", "EMPTY_ANSWER"),
    "cut short": (CLEAN[:200], "length", "TRUNCATED"),
    "whole, but never stopped": (CLEAN, "length", "TRUNCATED"),
    "broken off by the server": ("", REPEATED, "REPETITION"),
    "leak at the end": (CLEAN.replace("dialysis.", "dialysis.</s>"), "stop", "TEMPLATE_LEAK"),
    "leak of the next turn": (CLEAN + "\n[INST] And azotemia?[/INST]", "stop", "TEMPLATE_LEAK"),
    "leak of another family": (CLEAN.replace("itch", "<|im_end|>"), "stop", "TEMPLATE_LEAK"),
    "preamble": ("Sure!\n\n" + CLEAN, "stop", "PREAMBLE"),
    "postamble": (CLEAN + "\n\nAsk me more.", "stop", "POSTAMBLE"),
    "no note": (CLEAN[: CLEAN.index("\n\n**Note**")], "stop", "NOTE_MISSING"),
    "weak note": (CLEAN.replace(NOTE, "Ask a doctor."), "stop", "NOTE_WEAK"),
    "no explanation": (re.sub(r"\*\*Explanation.*?(?=\*\*Clin)", "", CLEAN, flags=re.S), "stop", "MISSING_SECTION"),
    "a section twice": (CLEAN.replace("**Note**", "**Definition**: A\n\n**Note**"), "stop", "DUPLICATE_SECTION"),
    "too short": (CLEAN.replace(RECORD["definition"], "Uremia is bad."), "stop", "TOO_SHORT"),
    "too long": (CLEAN.replace("urea and", "urea " * 60 + "and"), "stop", "TOO_LONG"),
    "no heading at all": ("Uremia is a build-up of urea in the blood.", "stop", "MISSING_SECTION"),
}  # fmt: skip


@pytest.mark.parametrize("text", [CLEAN, " " + CLEAN], ids=["plain", "with the wire's space"])
def test_a_clean_answer_adheres(text: str) -> None:
    verdict = judge(CONTRACT, EXAMPLE, Answer(text))
    assert verdict.adheres and verdict.primary == "" and verdict.violations == ()
    assert verdict.named is True and verdict.keywords == pytest.approx(2 / 3)


@pytest.mark.parametrize(("text", "reason", "cls"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_answer_fails_under_its_class(text: str, reason: str, cls: str) -> None:
    verdict = judge(CONTRACT, EXAMPLE, Answer(text, reason))
    assert not verdict.adheres
    assert verdict.primary == cls
    assert {v.cls for v in verdict.violations} <= set(CLASSES)


def test_every_violation_is_kept_with_its_text() -> None:
    text = ("Hello\n\n" + CLEAN).replace(NOTE, "Ask a doctor.")
    found = {(v.cls, v.section, v.found) for v in judge(CONTRACT, EXAMPLE, Answer(text)).violations}
    assert found == {("PREAMBLE", "", "Hello\n\n"), ("NOTE_WEAK", "note", "Ask a doctor.")}


def test_every_class_that_the_contract_knows_is_on_the_list() -> None:
    source = "".join((ROOT / "contract" / name).read_text() for name in ("kinds.py", "reading.py"))
    spelled = set(re.findall(r'"([A-Z]{3,}(?:_[A-Z]+)+|PREAMBLE|POSTAMBLE)"', source)) - {"MARK", "LINE_SCHEMA"}
    assert spelled and spelled <= set(CLASSES)


def test_an_unknown_class_never_passes() -> None:
    with pytest.raises(ValueError, match="NEW_RULE"):
        primary((Violation("", "NEW_RULE", ""),))


def test_an_error_is_never_judged() -> None:
    with pytest.raises(AssertionError):
        judge(CONTRACT, EXAMPLE, failed("transport", "refused"))


@pytest.mark.parametrize(
    ("text", "concept", "named"),
    [
        ("Uremia is a state.", "uremia", True),
        ("The aPTT is a test.", "aPTT", True),
        ("Atria are chambers.", "atrium", False),
        ("Two pathogens cause it.", "pathogen", True),
        ("Abscesses hold pus.", "abscess", True),
        ("Biopsies take tissue.", "biopsy", True),
        ("Assays and an assay.", "assay", True),
        ("A paralysis.", "lysis", False),
        ("A fine needle\naspiration takes cells.", "fine-needle aspiration", True),
        ("The MSH gene.", "MS", False),
        ("A glucagonoma.", "glucagon", False),
        ("Hemoglobin (A1c) test", "hemoglobin (a1c)", True),
        ("", "uremia", False),
    ],
)
def test_mentions(text: str, concept: str, named: bool) -> None:
    assert mentions(text, concept) is named


def test_the_concept_must_stand_in_the_first_prose_section() -> None:
    elsewhere = CLEAN.replace("Uremia is a build-up", "This is a build-up")
    assert "uremia" in elsewhere
    assert judge(CONTRACT, EXAMPLE, Answer(elsewhere)).named is False


def test_a_contract_without_prose_names_nothing(tmp_path: Path) -> None:
    task = tmp_path / "answer.toml"
    sections = '[[section]]\nname = "answer"\ntitle = "Answer"\nkind = "choice"\noptions = ["yes", "no"]\n'
    task.write_text('name = "answer"\nabout = "Decide."\nheading = "{title}: "\nseparator = "\\n\\n"\n' + sections)
    verdict = judge(load_contract(task), EXAMPLE, Answer("Answer: yes"))
    assert verdict.adheres and verdict.named is None

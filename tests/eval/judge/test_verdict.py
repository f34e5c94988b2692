import dataclasses
import re
from pathlib import Path

import pytest

from contract.contract import Violation, load_contract
from contract.example import Example
from data_gen.compose.dataset import make_dataset
from data_gen.compose.split import SEED, split
from data_gen.compose.task_data import load_task_data
from data_gen.facts import read_facts
from eval.judge.readings import LONGEST
from eval.judge.verdict import CLASSES, judge, mentions, primary
from eval.selftest.clean_examples import generated_example
from models.answers import REPEATED, Answer, failed
from plumbing.errors import UserError
from tests.conftest import ROOT
from tests.strategies import FORMS

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

E, C = RECORD["explanation"], RECORD["clinical_relevance"]
SORRY = "I'm sorry, but I cannot help with that."

# answer, done_reason, the primary class, the others
FAULTS = {
    "nothing": ("", "stop", "EMPTY_ANSWER", set()),
    "only white space": (" \n ", "stop", "EMPTY_ANSWER", set()),
    "cut short": (CLEAN[:200], "length", "TRUNCATED", {"MISSING_SECTION", "NOTE_MISSING", "POSTAMBLE"}),
    "cut short, and the server does not say so": (CLEAN[: CLEAN.index("ma.\n\n**Clin")], "stop", "TRUNCATED",
        {"MISSING_SECTION", "NOTE_MISSING"}),
    "cut within a middle section": (CLEAN.replace(" rise in plasma.", " rise"), "stop", "TRUNCATED", set()),
    "cut within the note": (CLEAN[:-20], "stop", "TRUNCATED", {"NOTE_WEAK"}),
    "cut within a heading": (CLEAN[: CLEAN.index("te**: This")], "stop", "TRUNCATED", {"NOTE_MISSING", "POSTAMBLE"}),
    "trailing off": (CLEAN.replace("in plasma.", "in plasma..."), "stop", "TRUNCATED", set()),
    "whole, but never stopped": (CLEAN, "length", "TRUNCATED", set()),
    "nothing within the limit": ("", "length", "TRUNCATED", set()),
    "broken off by the server at once": ("", REPEATED, "REPETITION", set()),
    "broken off by the server": (CLEAN[:100], REPEATED, "REPETITION",
        {"TRUNCATED", "TOO_SHORT", "MISSING_SECTION", "NOTE_MISSING"}),
    "a phrase again and again": (CLEAN.replace("plasma.", "plasma" + " and water" * 5 + "."), "stop", "REPETITION", set()),
    "a word again and again": (CLEAN.replace("rise", "rise" + " up" * 4), "stop", "REPETITION", set()),
    "a long phrase twice": (CLEAN.replace("so they rise in plasma", "so they rise in plasma " * 2 + "again"), "stop", "REPETITION", set()),
    "a sentence twice in a row": (CLEAN.replace(E, f"{E} {E}"), "stop", "REPETITION", set()),
    "a sentence in every section": (CLEAN.replace(C, f"{C} {E}").replace("blood.", f"blood. {E}"), "stop", "REPETITION", set()),
    "a laugh": (CLEAN.replace("plasma", "ha" * 300), "stop", "REPETITION", set()),
    "a loop in another script": (CLEAN.replace("plasma.", "вода и " * 30 + "."), "stop", "REPETITION", set()),
    "leak at the end": (CLEAN.replace("dialysis.", "dialysis.</s>"), "stop", "TEMPLATE_LEAK", set()),
    "leak of the next turn": (CLEAN + "\n[INST] And azotemia?[/INST]", "stop", "TEMPLATE_LEAK", {"POSTAMBLE"}),
    "leak of another family": (CLEAN.replace("itch", "<|im_end|>"), "stop", "TEMPLATE_LEAK", set()),
    "leak of a role": (CLEAN + "\n\nUser: And azotemia?", "stop", "TEMPLATE_LEAK", {"POSTAMBLE"}),
    "leak of Ollama's template": (CLEAN.replace("itch", "{{ .Prompt }}"), "stop", "TEMPLATE_LEAK", set()),
    "a refusal": (SORRY, "stop", "REFUSAL", {"PREAMBLE", "MISSING_SECTION", "NOTE_MISSING"}),
    "a refusal in form": (CLEAN.replace(E, SORRY), "stop", "REFUSAL", {"TOO_SHORT"}),
    "a refusal behind": (CLEAN + "\n\nI cannot provide medical advice.", "stop", "REFUSAL", {"POSTAMBLE"}),
    "dots": (CLEAN.replace(E, "..."), "stop", "PLACEHOLDER", {"TOO_SHORT"}),
    "dots enough": (CLEAN.replace(E, " ".join(["..."] * 10)), "stop", "REPETITION", {"PLACEHOLDER"}),
    "a reminder": (CLEAN.replace(E, "TODO"), "stop", "PLACEHOLDER", {"TOO_SHORT"}),
    "a slot": (CLEAN.replace(E, "[insert explanation]"), "stop", "PLACEHOLDER", {"TOO_SHORT"}),
    "a slot for the section": (CLEAN.replace(E, "<clinical relevance>"), "stop", "PLACEHOLDER", {"TOO_SHORT"}),
    "a slot in a text": (CLEAN.replace("plasma.", "plasma. [add a source]"), "stop", "PLACEHOLDER", set()),
    "a template's hole": (CLEAN.replace("plasma.", "{mechanism}."), "stop", "PLACEHOLDER", set()),
    "the prompt's own words": (CLEAN.replace(E, "one paragraph of 10 to 120 words"), "stop", "PLACEHOLDER",
        {"TOO_SHORT"}),
    "the prompt's own words for the note": (CLEAN.replace(NOTE, f"exactly this text: {NOTE}"), "stop", "PLACEHOLDER", {"WRONG_VALUE"}),
    "no value": (CLEAN.replace(E, "N/A"), "stop", "PLACEHOLDER", {"TOO_SHORT"}),
    "preamble": ("Sure!\n\n" + CLEAN, "stop", "PREAMBLE", set()),
    "postamble": (CLEAN + "\n\nAsk me more.", "stop", "POSTAMBLE", set()),
    "no note": (CLEAN[: CLEAN.index("\n\n**Note**")], "stop", "NOTE_MISSING", set()),
    "weak note": (CLEAN.replace(NOTE, "Ask a doctor."), "stop", "NOTE_WEAK", set()),
    "no explanation": (re.sub(r"\*\*Explanation.*?(?=\*\*Clin)", "", CLEAN, flags=re.S), "stop", "MISSING_SECTION", set()),
    "a section twice": (CLEAN.replace("**Note**", "**Definition**: A\n\n**Note**"), "stop", "DUPLICATE_SECTION", set()),
    "all of it twice": (f"{CLEAN}\n\n{CLEAN}", "stop", "DUPLICATE_SECTION", set()),
    "an empty section": (CLEAN.replace(E, ""), "stop", "EMPTY_SECTION", set()),
    "all in a fence": (f"```\n{CLEAN}\n```", "stop", "CODE_FENCE", set()),
    "other headings": (CLEAN.replace("**", ""), "stop", "HEADING_VARIANT", set()),
    "one more section": (f"{CLEAN}\n\n**Sources**: none", "stop", "EXTRA_SECTION", set()),
    "two paragraphs": (CLEAN.replace("urea,", "urea,\n\nand"), "stop", "WRONG_VALUE", {"TOO_SHORT"}),
    "too short": (CLEAN.replace(RECORD["definition"], "Uremia is bad."), "stop", "TOO_SHORT", set()),
    "too long": (CLEAN.replace("urea and", " ".join(f"urea{n}" for n in range(60)) + " and"), "stop", "TOO_LONG", set()),
    "no heading at all": ("Uremia is a build-up of urea in the blood.", "stop", "MISSING_SECTION",
        {"PREAMBLE", "NOTE_MISSING"}),
}  # fmt: skip


@pytest.mark.parametrize("text", [CLEAN, " " + CLEAN], ids=["plain", "with the wire's space"])
def test_a_clean_answer_adheres(text: str) -> None:
    verdict = judge(CONTRACT, EXAMPLE, Answer(text))
    assert verdict.adheres and verdict.primary == "" and verdict.violations == ()
    assert verdict.named is True


@pytest.mark.parametrize(("text", "reason", "cls", "others"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_answer_fails_under_its_class(text: str, reason: str, cls: str, others: set[str]) -> None:
    verdict = judge(CONTRACT, EXAMPLE, Answer(text, reason))
    assert not verdict.adheres and not verdict.strict
    assert (verdict.primary, {v.cls for v in verdict.violations}) == (cls, {cls, *others})
    for violation in verdict.violations:
        assert text[violation.start : violation.end] in (violation.found, "")
    assert [v.start for v in verdict.violations] == sorted(v.start for v in verdict.violations)


def test_every_class_is_shown() -> None:
    assert {case[2] for case in FAULTS.values()} == set(CLASSES) - {"WRONG_ORDER"}  # that one is the next test's
    swapped = (
        CLEAN.replace("**Explanation**", "**X**")
        .replace("**Definition**", "**Explanation**")
        .replace("**X**", "**Definition**")
    )
    assert judge(CONTRACT, EXAMPLE, Answer(swapped)).primary == "WRONG_ORDER"


SOUND = {
    "types and classes": "Type I and class I cannot be told apart here, says the guideline that I am quoting.",
    "brackets": "The ratio [Na+]/[K+] falls; pH < 7.35 and pCO2 > 45 mmHg {in arterial blood} are the usual limits.",
    "a citation": "Failing kidneys no longer clear urea, creatinine and other products, so they rise. [12]",
    "a quotation": 'Patients often say that they "cannot think straight", which is a sign of a "foggy" mind."',
    "a question": "Why do failing kidneys matter so much, and why does urea rise in the plasma at all?",
    "many likes": "The left atrium, the left ventricle, the right atrium and the right ventricle make up the heart.",
    "so very much": "This is very, very, very common, and so the search for it is never, never done in vain.",
    "an ellipsis within": "Fluid, salts, urea, creatinine ... all of them rise when the two kidneys fail for long.",
}


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_a_sound_text_is_no_fault(text: str) -> None:
    verdict = judge(CONTRACT, EXAMPLE, Answer(CLEAN.replace(E, text)))
    assert verdict.adheres, verdict.violations


def test_a_section_needs_a_sentence_where_the_example_has_one() -> None:
    term = CONTRACT.write(RECORD | {"definition": "Build-up of urea in the blood"})
    assert judge(CONTRACT, EXAMPLE, Answer(term)).primary == "TRUNCATED"
    terse = dataclasses.replace(EXAMPLE, record=RECORD | {"definition": "High urea and much else"})
    assert judge(CONTRACT, terse, Answer(term)).adheres


def test_lists_pairs_and_choices_need_no_sentence() -> None:
    for form in FORMS:
        for number in range(20):
            example = generated_example(form, number)
            verdict = judge(form, example, Answer(example.response))
            assert verdict.violations == () and verdict.loose and verdict.lenient


def test_the_whole_shipped_dataset_is_clean() -> None:
    contract, data, facts_path = load_task_data("terminology")
    sides = split(read_facts(facts_path, data.texts()), SEED)
    dataset = make_dataset(contract, data, sides, None, SEED)
    examples = [example for rows in dataset.values() for example in rows]
    assert len(examples) > 2500
    faulty = {e.id: v.violations for e in examples if not (v := judge(contract, e, Answer(e.response))).adheres}
    assert faulty == {}


def test_every_violation_is_kept_with_its_text() -> None:
    text = ("Hello\n\n" + CLEAN).replace(NOTE, "Ask a doctor.")
    found = {(v.cls, v.section, v.found) for v in judge(CONTRACT, EXAMPLE, Answer(text)).violations}
    assert found == {("PREAMBLE", "", "Hello\n\n"), ("NOTE_WEAK", "note", "Ask a doctor.")}


def test_every_class_that_the_contract_knows_is_on_the_list() -> None:
    source = "".join((ROOT / "contract" / name).read_text() for name in ("kinds.py", "diagnosis.py"))
    spelled = set(re.findall(r'"([A-Z]{3,}(?:_[A-Z]+)+|PREAMBLE|POSTAMBLE)"', source)) - {"MARK", "LINE_SCHEMA"}
    assert spelled and spelled <= set(CLASSES)


def test_what_lies_too_far_behind_to_be_searched_still_fails() -> None:
    filler = "".join(map(str, range(20_000)))[: LONGEST - len(CLEAN)]
    long = CLEAN.replace("wastes", f"{filler}wastes", 1)
    assert len(long) == LONGEST and judge(CONTRACT, EXAMPLE, Answer(long)).strict
    verdict = judge(CONTRACT, EXAMPLE, Answer(long + "\nBye."))
    assert [(v.cls, v.found, v.start) for v in verdict.violations] == [("POSTAMBLE", "\nBye.", LONGEST)]
    assert not verdict.lenient, "a text that is too long has no variants"


def test_an_unknown_class_never_passes() -> None:
    with pytest.raises(ValueError, match="NEW_RULE"):
        primary([Violation("", "NEW_RULE", "", 0, 0)])


def test_an_unknown_rule_of_a_task_is_an_error(tmp_path: Path) -> None:
    text = (ROOT / "contract/tasks/terminology.toml").read_text()
    for old, new, said in [
        ("min_words = 5", "min_wrods = 5", "min_wrods"),
        ('kind = "prose"', 'kind = "rhyme"', "rhyme"),
    ]:
        (tmp_path / "task.toml").write_text(text.replace(old, new, 1))
        with pytest.raises(UserError, match=said):
            load_contract(tmp_path / "task.toml")


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

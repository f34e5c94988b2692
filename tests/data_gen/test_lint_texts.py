"""Each rule on texts finds its planted fault, and that rule alone; sound texts have no finding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_gen.lint_facts import Finding, lint, read

DEFINITION = "Edema is a swelling of soft tissue by fluid that has left the small blood vessels."
MECHANISM = (
    "A high pressure in the capillaries, too little protein in the blood or a leaking vessel wall drives water out of "
    "the vessels. Blocked lymph channels have the same effect, because they no longer carry the water back."
)
CLINICAL = (
    "Pitting edema of both legs points to the heart, the kidneys or the liver. Swelling of one leg alone suggests a clot "
    "in a deep vein. Diuretics, compression and a low intake of salt are common measures."
)
SHORT = "Swelling of one leg alone suggests a clot in a deep vein with pain, heat and redness."
CLEAN: dict[str, Any] = {
    "id": "terms/edema",
    "category": "terms",
    "concept": "edema",
    "aliases": ["dropsy"],
    "definition": DEFINITION,
    "mechanism": MECHANISM,
    "clinical": CLINICAL,
    "keywords": ["swelling", "clot", "lymph"],
    "sources": [
        {"name": "Symptom Ontology", "id": "SYMP:0000124", "url": "http://x.org/SYMP_0000124", "licence": "MIT"}
    ],
    "reviewed": False,
}


def write(path: Path, *rows: Any) -> Path:
    """A fact file; a row that is text is written as it is."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def findings(folder: Path, *rows: Any, name: str = "terms.jsonl") -> list[Finding]:
    """What lint finds in a shipped file that holds these rows."""
    return lint(read([write(folder / name, *rows)], shipped=folder))


def more(sentence: str, **change: Any) -> dict[str, Any]:
    """The clean fact, with one sentence more."""
    return CLEAN | {"mechanism": f"{MECHANISM} {sentence}"} | change


def defined(text: str) -> dict[str, Any]:
    return CLEAN | {"definition": text}


def clinical(text: str) -> dict[str, Any]:
    return CLEAN | {"clinical": text}


def keywords(*words: str) -> dict[str, Any]:
    return CLEAN | {"keywords": list(words)}


# rule, the faulty fact, what the finding must say
PLANTED: list[tuple[str, dict[str, Any], str]] = [
    ("characters", more("The vessel\u2019s wall leaks."), "U+2019 RIGHT SINGLE QUOTATION MARK; write it in ASCII"),
    ("characters", more("The wall \u2013 a thin one \u2013 leaks."), "U+2013 EN DASH"),
    ("characters", more("The wall \u2212 a thin one."), "U+2212 MINUS SIGN"),
    ("characters", more("The\u00a0wall leaks."), "U+00A0 NO-BREAK SPACE"),
    ("characters", more("The \ufb02uid leaks."), "U+FB02 LATIN SMALL LIGATURE FL"),
    ("characters", more("The wall\u200b leaks."), "U+200B ZERO WIDTH SPACE"),
    ("characters", more("The wall\x00 leaks."), "U+0000 unnamed"),
    ("characters", more("The w\u0430ll leaks."), "letters of CYRILLIC and LATIN"),
    ("characters", more("Here \u0430 wall leaks."), "letters of CYRILLIC; write"),
    ("characters", more("The w\u03b1ll leaks."), "letters of GREEK and LATIN"),
    ("characters", more("A cafe\u0301 is not meant."), "an accent separate from its letter"),
    ("blanks", clinical(CLINICAL.replace(". ", ".  ", 1)), "'clinical': "),
    ("blanks", clinical(CLINICAL + " "), "write single spaces"),
    ("blanks", clinical("\n" + CLINICAL), "write single spaces"),
    ("blanks", CLEAN | {"aliases": [" dropsy"]}, "'aliases': "),
    ("blanks", more("The wall\tleaks."), "a tab"),
    ("seam", more("The wall of the the vessel leaks."), "'the the': a doubled word"),
    ("seam", more("Then a a vessel leaks."), "'a a': a doubled word"),
    ("seam", more("Then a an infection begins."), "'a an' in "),
    ("seam", more("Then {concept} begins."), "'{concept}' in "),
    ("seam", more("The wall , then, leaks."), "' ,' in "),
    ("seam", more("The wall leaks.."), "'..' in "),
    ("seam", more("The wall leaks.Then it heals."), "'ks.Th' in "),
    ("seam", more("The wall,then, leaks."), "'l,t' in "),
    ("article", more("This is a abscess."), "'a abscess'; write 'an abscess'"),
    ("article", more("This is an disease."), "'an disease'; write 'a disease'"),
    ("article", more("An uterus swells."), "'An uterus'; write 'a uterus'"),
    ("article", more("It lasts a hour."), "write 'an hour'"),
    ("article", more("It takes a 8 minutes walk."), "write 'an 8'"),
    ("article", more("It takes a MRI.", aliases=["MRI"]), "write 'an MRI'"),
    ("brackets", more("The wall (a thin one leaks."), "'(' has no partner"),
    ("brackets", more("The wall a thin one) leaks."), "')' has no partner"),
    ("brackets", more("The wall (a thin one] leaks."), "']' has no partner"),
    ("unnamed", defined(DEFINITION.replace("Edema", "This")), "names none of: edema, dropsy; name the concept"),
    ("category-only", defined("Edema is a common medical condition of the human body."), "says only what kind it is"),
    ("category-only", defined("Edema is a disease. Fluid swells the soft tissue."), "'Edema is a disease.' says"),
    ("repeats-term", defined("Edema is a term for an edema or dropsy of the legs."), "says only leg beyond the term"),
    ("repeats-term", defined("Edema is edema, which is also called a dropsy."), "says only nothing beyond the term"),
    ("abbreviation", more("The ECG helps."), "'ECG' is not spelled out at its first use"),
    ("abbreviation", more("The ECG helps, an electrocardiogram (ECG)."), "write 'its long name (ECG)'"),
    ("abbreviation", more("Salt, ECG, pulse and weight help."), "'ECG' is not"),
    ("abbreviation", more("Tests (ECG and pulse) help."), "'ECG' is not"),
    ("abbreviation", more("The ECG, some recent guess, helps."), "'ECG' is not"),
    ("abbreviation", more("It is no vapor IV either."), "'IV' is not"),
    ("abbreviation", more("Then IV fluids help."), "'IV' is not"),
    ("length", defined("Edema is swollen, wet soft tissue."), "'definition': words: 6; expected 8 to 45"),
    ("length", defined(f"{DEFINITION[:-1]}{', and so' * 15}."), "'definition': words: 46; expected 8 to 45"),
    ("length", more(f"Water {'and salt ' * 11}leaks now."), "'mechanism': words: 63; expected 25 to 60"),
    ("length", clinical(CLINICAL.partition(" Dire")[0].replace(". ", ", ")), "'clinical': sentences: 1; expected 2 to 4"),
    ("length", more("It leaks. It swells. It stays."), "'mechanism': sentences: 5; expected 2 to 4"),
    ("length", defined(f"{DEFINITION} It swells. It stays."), "'definition': sentences: 3; expected 1 to 2"),
    ("length", more(f"It {'leaks and ' * 9}swells.", clinical=f"{CLINICAL[:-1]}{', and so' * 10}."),
     "words of the three texts: 131; expected 80 to 130"),
    ("length", clinical(f"Edema of both legs points to the heart. {SHORT}"), "words of the three texts: 79; expected 80"),
    ("keywords", keywords("clot", "swelling"), "keywords: 2; expected 3 to 8"),
    ("keywords", keywords("fluid", "swelling", "soft", "heart", "liver", "leg", "clot", "vein", "salt"), "keywords: 9;"),
    ("keywords", keywords("fluid", "swelling", "Fluid"), "'fluid' appears twice"),
    ("keywords", keywords("fluid", "swelling", "ein"), "'ein' begins no word of the fact's texts"),
    ("sentence", clinical(CLINICAL[:-1]), "end the sentence with a full stop"),
    ("sentence", defined(f"e{DEFINITION[1:]}"), "'edema' begins a sentence; write its first letter as a capital"),
    ("sentence", more("It leaks. then it stays."), "'then' begins a sentence"),
    ("dosing", more("Furosemide is given as 40 mg per day."), "'40 mg per day' is a dose; leave doses out"),
    ("dosing", more("Furosemide at 40 mg per day raises the output of urine."), "'40 mg per day' is a dose"),
    ("dosing", more("It needs 5 mg/kg."), "'5 mg/kg' is a dose"),
    ("dosing", more("It needs 10 mL every 4 hours."), "'10 mL every 4 hours' is a dose"),
    ("dosing", more("Drugs come twice daily."), "'twice daily' is a dose"),
    ("dosing", more("Patients take 2 tablets."), "'take 2 tablets' is a dose"),
    ("dosing", more("A dose of 40 mg helps."), "'dose of 40 mg' is a dose"),
    ("advice", more("Then you should rest."), "'you' advises a person; write a general statement"),
    ("advice", more("Talk to a doctor first."), "'Talk to a doctor' advises a person"),
    ("advice", more("Consult your doctor first."), "'your' advises a person"),
    ("advice", more("One must seek medical help."), "'seek medical help' advises a person"),
    ("percentage", more("It leaks in 40 % of cases.", sources=[]), "'40 %' in a fact without sources; name the source"),
    ("percentage", more("It leaks in ten percent.", sources=[]), "'ten percent' in a fact without sources"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "row", "said"), PLANTED, ids=[f"{n}-{p[0]}" for n, p in enumerate(PLANTED)])
def test_a_planted_fault_is_found_by_its_rule_alone(tmp_path: Path, rule: str, row: dict[str, Any], said: str) -> None:
    found = findings(tmp_path, row)
    assert said in "\n".join(map(str, found)) and {finding.rule for finding in found} == {rule}


# What the lists of words in the patterns hold, each once.
OTHER_WORDS = {
    "seam": "an the|a the|the an eye|an a|so ? So|so ! So|(so )|( so)|,, so|{}",
    "dosing": "40 mg orally|1 g by mouth|5 mcg intravenously|2 units daily|5 iu once a meal|2 puffs twice a meal|once daily|"
    "twice a day|three times per day|four times each day|3 times every day|give them 5 drops|swallow one capsule|"
    "take two grams|take three milligrams|take half tablet|a dose of about 5 micrograms|doses of 5 ml|5 milliliters per dose|"
    "5 millilitres a week|5 mg each night|5 mg an hour|5 mg per kilogram|5 mg of iron every 6 hours|5 g in a day",
    "advice": "all yours|by yourself|please rest|consult a doctor|ask an experienced physician|call the nurse|visit a clinician|"
    "contact a pharmacist|see a healthcare worker|talk with a health care worker|speak to the doctor|seek advice|"
    "seek prompt attention|seek care|seek help",
    "percentage": "1.5 %|5%|5 per cent|one percent|two percent|three percent|five percent|fifty percent",
    "article": "a hour|a honest try|a honor|a heir|a 8|a 11th|a 18th|an 110th|an 180th|an one-way valve|an Ewing sarcoma|"
    "an ubiquitous cell|an uvula|a unintended cut|a unimpaired vessel|a unidentified cell|an uninuclear cell|an eunuch|an ureter|"
    "an user|an utensil|a Rh group|a Hb value|a MRI|a mRNA|an cDNA|a x-ray|an once sound wall|a TIA and an TIA",
}


@pytest.mark.parametrize(
    ("rule", "phrase"), [(rule, one) for rule, all_ in OTHER_WORDS.items() for one in all_.split("|")]
)
def test_the_same_fault_in_other_words(tmp_path: Path, rule: str, phrase: str) -> None:
    found = findings(tmp_path, more(f"There {phrase} stands.", aliases=["MRI", "TIA"], sources=[]))
    assert [finding.rule for finding in found] == [rule]


@pytest.mark.parametrize(
    "sentence",
    [
        "Fasting glucose is normally 70 to 100 mg per deciliter, or below 100 mg/dL.",
        "Healthy kidneys excrete less than 30 mg of albumin per day.",
        "Oliguria is an output of urine below 400 mL in a day.",
        "Factors VII, X and V and a type IV collagen take part.",
        "DNA and RNA, the ABO groups, CD4 cells, COVID-19 and BRCA1 are names.",
        "An electrocardiogram (ECG) helps, and the ECG is cheap.",
        "Cancer antigen 125 (CA 125), nonsteroidal drugs (NSAIDs) and others help.",
        "The ECG (electrocardiogram) helps.",
        "The ECG, electrocardiogram, helps.",
        "E. coli and C. difficile, e.g. in the gut, may invade.",
        "The pH falls. pH is then low.",
        "Water that had had time to leak and that that wall holds stays.",
        "It takes an hour, a unit, a uterus, an ulcer, an unidentified cause, an 11th one, a one-way valve or an mRNA.",
        "It takes an MRI scan, an x-ray, a T cell, an S-shaped bend, a FISH test, an HbA1c or a HbA1c.",
        "Hepatitis A or B and vitamin A are known. A urine test helps, and an X-ray does not.",
        "Sj\u00f6gren syndrome (dry eyes [and mouth]) is alike.",
        *(
            f"A {noun} IV lesion."
            for noun in ("type", "stage", "class", "grade", "factor", "nerve", "phase", "collagen")
        ),
        *(f"Lesions of {before} IV differ." for before in ("III and", "III or", "II to", "II, III,")),
        "Nerves IX, XI and XIV are named.",
        *(f"They {what} 5 g per day." for what in ("excrete", "output is", "secrete", "produce", "filter", "lose")),
        *(f"The {what} 5 g per day." for what in ("daily intake of", "loss of", "protein mass of", "albumin mass of")),
        "It had an herb or a herb, an historic or a historic REM sleep, a REM or an REM phase.",
        "A and E are letters, so A is too.",
        "A or E is meant. A is a letter.",
        "It rises by 1.5 points and, rarely, falls below .5 of it.",
        "Of all cells 40 % swell.",
    ],
)
def test_sound_text_has_no_finding(tmp_path: Path, sentence: str) -> None:
    assert findings(tmp_path, more(sentence, aliases=["MRI", "FISH", "REM"])) == []


def test_the_definition_of_an_abbreviation_spells_it_out(tmp_path: Path) -> None:
    short = CLEAN | {"id": "abbreviations/scd", "category": "abbreviations", "concept": "SCD", "aliases": []}
    text = "SCD stands for a swelling of the soft tissue of legs by fluid."
    full = {"expansion": "swelling by capillary damage", "definition": f"{text[:-1]}, a swelling by capillary damage."}
    rules = [
        {finding.rule for finding in findings(tmp_path, short | change, name="abbreviations.jsonl")}
        for change in (full, full | {"definition": text}, {"definition": text})
    ]
    assert rules == [set(), {"expansion"}, {"field"}]


def test_the_bounds_themselves_are_sound(tmp_path: Path) -> None:
    most = more(f"It {'leaks and ' * 8}then swells.", clinical=f"{CLINICAL[:-1]}{', and so' * 10}.")
    least = clinical(f"Edema of both legs points to the heart. {SHORT[:-1]} now.")
    for count, row in ((130, most), (80, least)):
        assert sum(len(row[name].split()) for name in ("definition", "mechanism", "clinical")) == count
        assert findings(tmp_path, row) == []
    assert findings(tmp_path, keywords("fluid", "swelling", "soft", "heart", "liver", "leg", "clot", "vein")) == []

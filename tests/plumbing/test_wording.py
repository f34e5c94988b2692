"""The one spelling of texts and names: what is one name, and what two names are not."""

from __future__ import annotations

import pytest

from plumbing.wording import name_key, phrases, plain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Crohn's disease", "CROHN DISEASE"),
        ("Crohn\u2019s disease", "crohn diseases"),
        ("Graves' disease", "Graves disease"),
        ("X-ray", "x rays"),
        ("Sjögren syndrome", "sjo\u0308gren\u00a0syndrome"),
        ("CO\u2082", "co2"),
        ("hyper\u00adten\u200bsion", "hypertension"),
        ("haemorrhages", "hemorrhage"),
        ("tumour", "tumors"),
        ("oedema", "Edema"),
        ("arteries", "artery"),
        ("diagnoses", "diagnosis"),
        ("headaches", "headache"),
        ("abscesses", "abscess"),
        ("viruses", "virus"),
        ("bacteria", "bacterium"),
        ("bronchi", "bronchus"),
        ("vertebrae", "vertebra"),
        ("gall bladder", "gallbladder"),
        ("  heart\tfailure ", "heart failure."),
    ],
)
def test_two_spellings_of_one_name_meet(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hyperkalemia", "hypokalemia"),
        ("type 1 diabetes", "type 2 diabetes"),
        ("hepatitis A", "hepatitis B"),
        ("dysphagia", "dysphasia"),
        ("ileum", "ilium"),
        ("CD4", "CD4+"),
        ("mitosis", "meiosis"),
        ("scab", "scabies"),
        ("PE", "POE"),
    ],
)
def test_two_names_stay_two(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


def test_case_blanks_and_punctuation_do_not_count() -> None:
    assert plain("What  is\n'Hypertension'?!") == plain("what is hypertension")
    assert phrases("A, b.\n\n(C d)") == ["a", "b", "c d"] and phrases(" ?! ") == []

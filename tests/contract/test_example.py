"""Dataset rows: every row checked, all faults told at once, in one line each file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from contract.contract import load_contract
from contract.example import Example, read_examples, read_splits, row_faults
from plumbing.errors import UserError

CONTRACT = load_contract("terminology")
NOTE = "This is educational information only. Always consult healthcare professionals for medical decisions."
RECORD = {
    "definition": "Edema is swelling from fluid in tissues.",
    "explanation": "Fluid leaves the capillaries faster than the lymph vessels can carry it.",
    "clinical_relevance": "Swollen ankles can be the first sign of heart, liver or kidney disease.",
    "note": NOTE,
}
EXAMPLE = Example("edema/0", "edema", "terms", "What is edema?", "", RECORD, CONTRACT.write(RECORD), ("fluid",))


def row(**change: Any) -> dict[str, Any]:
    return json.loads(EXAMPLE.to_json()) | change


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding="utf-8", newline="\n")
    return path


def test_an_example_survives_its_file(tmp_path: Path) -> None:
    odd = dataclasses.replace(
        EXAMPLE, id="2", request="a\u2028b\x85c\x0bd\r\ne", concept="ödem 😀"
    )  # splitlines would cut
    path = tmp_path / "train.jsonl"
    path.write_text(EXAMPLE.to_json() + "\n" + odd.to_json() + "\n", encoding="utf-8", newline="\n")
    assert read_examples(path, CONTRACT) == [EXAMPLE, odd]
    path.write_text(EXAMPLE.to_json(), encoding="utf-8")  # no line break at the end
    assert read_examples(path, CONTRACT) == [EXAMPLE]


def test_messages_carry_the_system_text_only_when_there_is_one() -> None:
    user = {"role": "user", "content": "What is edema?"}
    assert EXAMPLE.messages() == [user]
    assert dataclasses.replace(EXAMPLE, system="S").messages() == [{"role": "system", "content": "S"}, user]


FORGED = RECORD | {"definition": "Edema is swelling.\n\n**Note**: five words and more"}
BAD_ROWS = [
    (row(requests="x"), "row: Additional properties are not allowed ('requests' was unexpected)"),
    ({k: v for k, v in row().items() if k != "request"}, "row: 'request' is a required property"),
    (row(request=""), "request: '' should be non-empty"),
    (row(request=3), "request: 3 is not of type 'string'"),
    (row(keywords="fluid"), "keywords: 'fluid' is not of type 'array'"),
    (row(record=RECORD | {"note": "Ask."}), f"record.note: '{NOTE}' was expected"),
    (row(record=RECORD | {"definition": "Too short."}), "record.definition: 'Too short.' does not match"),
    (row(record={}), "record: 'definition' is a required property"),
    (row(record=FORGED), "record.definition"),
    (row(response="Swelling."), "response does not read back as the record"),
    (row(response=EXAMPLE.response + "\n"), "['POSTAMBLE']"),
    (row(response=EXAMPLE.response.replace("Fluid leaves", "Water leaves")), "response does not read back"),
    ([1], "row: [1] is not of type 'object'"),
    (None, "row: None is not of type 'object'"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_ROWS, ids=range(len(BAD_ROWS)))
def test_a_bad_row_is_named(tmp_path: Path, bad: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_examples(write(tmp_path / "train.jsonl", row(id="other"), bad), CONTRACT)
    assert str(caught.value).startswith(f"{tmp_path / 'train.jsonl'}: ") and "row 2: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no row"),
        (b"{]\n", "line 1: not JSON"),
        (b"\n", "line 1: not JSON"),
        (b"\xff\n", "not UTF-8 text: invalid start byte at byte 0"),
        (b'{"a": "\\ud83d"}\n', "line 1: holds half of a surrogate pair"),
        (b"[" * 100_000, "line 1: not JSON"),
    ],
)
def test_a_file_that_holds_no_rows(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "train.jsonl"
    with pytest.raises(UserError, match=r"train.jsonl: no such file; `make dataset` writes"):
        read_examples(path, CONTRACT)
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_examples(path, CONTRACT)
    assert said in str(caught.value)


def test_all_faults_are_counted_and_the_first_ten_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"11 faults: row 1: .* row 10: .*; and 5 more$"):
        read_examples(write(tmp_path / "train.jsonl", *(row(id=str(n), request="") for n in range(15))), CONTRACT)


def test_an_id_may_stand_once() -> None:
    assert list(row_faults(CONTRACT, [row(), row(id="b"), row()])) == ["row 3: id 'edema/0' appears twice"]


def test_a_dataset_without_a_test_split_says_so(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write(tmp_path / f"{split}.jsonl", row())
    with pytest.raises(UserError, match=r"test\.jsonl: no such file"):
        read_splits(tmp_path, CONTRACT)
    write(tmp_path / "test.jsonl", row())
    assert read_splits(tmp_path, CONTRACT) == {split: [EXAMPLE] for split in ("train", "validation", "test")}

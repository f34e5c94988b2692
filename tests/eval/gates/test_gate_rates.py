"""What a gate reads of judged answers, and that the shipped gates can be passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.contract import load_contract
from contract.example import read_examples
from eval.gates.gate import judge_gate, load_gate, to_markdown
from eval.gates.gate_rates import gate_rates, known_names
from eval.judge.answer_row import AnswerRow
from eval.judge.verdict import judge
from models.answers import Answer
from tests.conftest import ROOT
from tests.finished_dataset import make_terminology


@pytest.mark.parametrize("path", sorted((ROOT / "eval/gates").glob("*.toml")), ids=lambda path: path.stem)
def test_flawless_answers_pass_every_shipped_gate(path: Path, tmp_path: Path) -> None:
    make_terminology(tmp_path / "dataset")
    contract = load_contract("terminology")
    examples = read_examples(tmp_path / "dataset/test.jsonl", contract)
    rows = [AnswerRow(e, a, judge(contract, e, a)) for e in examples for a in [Answer(e.response)]]
    outcome = judge_gate(load_gate(path, known_names(contract, examples), {}), gate_rates(contract, rows))
    assert outcome.verdict == "pass", to_markdown(outcome)

"""How fast is the judge?  `python -m benchmarks.bench_verdicts`

It prints verdicts a second on one core for clean terminology answers, and for the same answers with one fault each, by
all three readings.  Then it prints the milliseconds of the slowest of the texts that are made to be slow.
The judge must reach 5,000 verdicts a second on clean answers and stay under 0.1 s on every slow text.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence

from contract.contract import TASKS, Contract, load_contract
from contract.example import Example
from eval.judge.verdict import judge
from eval.selftest.clean_examples import clean_examples
from eval.selftest.mutations import mutants
from models.answers import Answer
from plumbing.errors import run

ROUNDS = 10
FEW = 40  # cases timed together
MILLION = 1_000_000
SHOWN = 10


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.bench_verdicts", description="Measure the speed of the judge."
    ).parse_args()
    contract, task = load_contract("terminology"), TASKS / "terminology.toml"
    examples = clean_examples(contract, task)[0]
    clean = [(example, Answer(example.response)) for example in examples]
    mean = sum(len(example.response) for example in examples) / len(examples)
    print(f"clean answers, {mean:.0f} characters on average: {per_second(contract, clean):,.0f} verdicts/s")
    faulty = [(e, m.answer) for e in examples[:10] for m in mutants(contract, e)]
    print(f"faulty answers: {per_second(contract, faulty):,.0f} verdicts/s")
    texts = slow_texts(contract, examples[0].response)
    spent = {name: 1 / per_second(contract, [(examples[0], Answer(text))], rounds=2) for name, text in texts.items()}
    print(f"{len(texts)} answers of about {MILLION:,} characters that are made to be slow; the slowest:")
    for name in sorted(spent, key=spent.__getitem__, reverse=True)[:SHOWN]:
        print(f"{1000 * spent[name]:7.1f} ms  {name}")


def per_second(contract: Contract, cases: Sequence[tuple[Example, Answer]], rounds: int = ROUNDS) -> float:
    """Verdicts a second.  Of every few cases the best round counts, because other work only adds to the time."""
    total = 0.0
    for first in range(0, len(cases), FEW):
        spent = []
        for _ in range(rounds):
            started = time.perf_counter()
            for example, answer in cases[first : first + FEW]:
                judge(contract, example, answer)
            spent.append(time.perf_counter() - started)
        total += min(spent)
    return len(cases) / total


def slow_texts(contract: Contract, clean: str, size: int = MILLION) -> dict[str, str]:
    """Name -> about `size` characters of a text that would make a careless reader slow.

    Each text occurs alone, in a clean answer's first section, and behind a clean answer.
    """
    heading = contract.head(contract.sections[0])
    pieces = {
        "stars": "**", "star lines": "**\n", "one line": "x", "words on one line": "word ", "spaces": " ",
        "line breaks": "\n", "spaces and breaks": " \n", "open brackets": "[", "open braces": "{{", "less-than": "<",
        "fences": "```\n", "headings": f"{heading} x\n\n", "headings in a row": heading, "quoted headings": f"> {heading}\n",
        "dressed headings": f"## {contract.sections[0].title}:\n", "nearly headings": f"**{contract.sections[0].title} ",
        "foreign headings": "**Foo**: x\n", "half foreign headings": "**a b c d\n", "list marks": "- a\n", "dots": ". ",
        "sentences": "It is so. ", "line separators": "\u2028", "refusals nearly": "I am sorry ", "apostrophes": "I'",
        "roles nearly": "User \n", "digits and dots": "1. ", "white space behind a title": f"\n{contract.sections[0].title}   ",
        "phrase nearly": "a b c d e f g h i j k l m n o p q r s t u v w x y z ab ", "underscores": "_", "pipes": "|-",
    }  # fmt: skip
    texts = {f"1 MB of {name}": piece * (size // len(piece)) for name, piece in pieces.items()}
    texts["10,000 headings"] = f"{heading} some words here\n\n" * min(10_000, size // 30)
    texts["100,000 numbered lines"] = "".join(f"{n}. line\n" for n in range(size // 10))
    texts["nested fences"] = "".join("`" * n + "\n" for n in range(int((2 * size) ** 0.5), 2, -1))
    texts["fences in two turns"] = "".join(("```\n", "~~~\n")[n % 2] * (1 + n % 3) for n in range(size // 8))
    texts["near repetitions"] = " ".join(f"the cell {n % 7} divides and" for n in range(size // 24))
    texts["words that all differ"] = " ".join(map(str, range(size // 7)))
    head, gap, tail = clean.partition(contract.separator + contract.head(contract.sections[1]))
    inside = {f"{name}, in an answer": f"{head} {text}{gap}{tail}" for name, text in texts.items()}
    behind = {f"{name}, behind an answer": f"{clean}\n{text}" for name, text in texts.items()}
    return dict(itertools.chain(texts.items(), inside.items(), behind.items()))


if __name__ == "__main__":
    run(main)

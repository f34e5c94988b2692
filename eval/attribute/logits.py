"""Deployment + expected answers -> Agreements of its models, by their token ids and logits.

The f16 GGUF is compared with the adapter in torch, every other GGUF with the f16 GGUF.  So a fault of the export and the loss of the quantisation are seen separately.  For an adapter that was trained on a
4-bit base, torch on the 16-bit base is compared with torch on the 4-bit one too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contract.example import Example
from eval.attribute.agreement import EXPORTED, ONTO, QUANTISED, UNKNOWN, Agreement, OtherVocabularyError, Seen, compare
from eval.attribute.deployment import F16, TORCH, Deployment
from eval.exam.conditions import sample
from models.embedded import Encode
from models.gguf_model import checked_digest, open_llama
from models.torch_model import Row, torch_logits, training_tokenizer
from plumbing.errors import UserError

ROWS = 32  # at most: about 8,000 predicted tokens; all their logits are in memory, 1 GB with a vocabulary of 32,768
TEXTS = (  # texts on which tokenizers differ: spaces, digits, bytes, punctuation beside words
    "Hello world", "  two blanks", "a\n\nb\tc", "1234567 mg, 0.5 %", "naïve \u03bcg \u2265 \u65e5\u672c \U0001f600",
    "tokenization of uncharacteristically long words", "[INST] x[/INST]", "don't (\"quote\") e.g. A/B-C",
)  # fmt: skip


def agreements(deployment: Deployment, examples: Sequence[Example]) -> tuple[list[Agreement], dict[str, str]]:
    """What could be measured; and each comparison that could not, with the reason.

    One model is in memory at a time; of each, only the logits of the expected answers are kept.  Raises UserError when
    a GGUF is damaged, or has another vocabulary than its reference.
    """
    for name in deployment.weights:
        checked_digest(deployment.folders["model"] / name)
    exported = f"logits of {F16} against torch"
    others = {name: f"logits of {name} against {F16}" for name in deployment.weights if name != F16}
    found: list[Agreement] = []
    left_out: dict[str, str] = {}

    @contextmanager
    def noted(*comparisons: str) -> Iterator[None]:
        try:
            yield
        except OtherVocabularyError:
            raise
        except UserError as error:
            left_out.update(dict.fromkeys(comparisons, str(error)))

    with noted(exported, *others.values()):
        pairs = answer_pairs(deployment, sample(examples, ROWS))
        texts = [*TEXTS, *(prompt + answer for prompt, answer in pairs)]
        rows, long = forced_rows(deployment, pairs)
        f16 = _see_gguf(deployment, deployment.f16, texts, rows)
        with noted(exported):
            found += _against_torch(deployment, f16, texts, rows, long)
        for name, comparison in others.items():
            with noted(comparison):
                seen = _see_gguf(deployment, deployment.folders["model"] / name, texts, rows)
                found.append(compare(seen, f16, QUANTISED.get(name.split(".")[1], UNKNOWN), long))
    return found, left_out


def answer_pairs(deployment: Deployment, examples: Sequence[Example]) -> list[tuple[str, str]]:
    """Each example's served prompt and expected answer as text."""
    served = deployment.served()
    turns = [({"role": "user", "content": example.request},) for example in examples]
    return [(served.prompt(t), served.base.completion(e.response)) for t, e in zip(turns, examples, strict=True)]


def forced_rows(deployment: Deployment, pairs: Sequence[tuple[str, str]]) -> tuple[list[Row], int]:
    """Token ids by the training tokenizer, or the f16 GGUF's own where that is missing; and how many rows are too long.

    Raises UserError when one token spans the end of the prompt and the beginning of the response, or no row fits.
    """
    with _tokenizer(deployment) as encode:
        rows = [_row(encode, *pair) for pair in pairs]
    num_ctx = deployment.options["num_ctx"]
    fitting = [row for row in rows if len(row[0]) <= num_ctx]
    if not fitting:
        raise UserError(f"no expected answer fits num_ctx {num_ctx} with its prompt; use a dataset of shorter answers")
    return fitting, len(rows) - len(fitting)


@contextmanager
def _tokenizer(deployment: Deployment) -> Iterator[Encode]:
    if TORCH not in deployment.missing:
        yield training_tokenizer(deployment.base_folder, deployment.base)
        return
    with open_llama(deployment.f16, deployment.base, 64) as model:
        yield model.tokenize


def _row(encode: Encode, prompt: str, answer: str) -> Row:
    head, ids = encode(prompt), encode(prompt + answer)
    if ids[: len(head)] != head:
        raise UserError(
            f"a token spans the end of the prompt and the beginning of its answer: {answer[:40]!r}; "
            "name the base of the training with --base DIR"
        )
    return ids, len(head)


def _see_gguf(deployment: Deployment, path: Path, texts: Sequence[str], rows: Sequence[Row]) -> Seen:
    print(path.name, file=sys.stderr, flush=True)
    longest = max(len(ids) for ids, _ in rows)
    with open_llama(path, deployment.base, longest, all_logits=True) as model:
        logits = [model.logits(ids)[start - 1 : -1] for ids, start in rows]
        return Seen(path.name, [model.tokenize(text) for text in texts], logits)


def _against_torch(
    deployment: Deployment, f16: Seen, texts: Sequence[str], rows: Sequence[Row], long: int
) -> list[Agreement]:
    deployment.need(TORCH)
    encode = training_tokenizer(deployment.base_folder, deployment.base)
    ids = [encode(text) for text in texts]
    torch = {}
    for onto in ("16bit", "nf4") if deployment.trained_in_4_bits else (deployment.onto,):
        name = f"torch on {onto}" if deployment.trained_in_4_bits else "torch"
        print(name, file=sys.stderr, flush=True)
        torch[onto] = Seen(
            name, ids, torch_logits(deployment.base_folder, deployment.folders.get("adapter"), onto, rows)
        )
    bases = [compare(torch["16bit"], torch["nf4"], ONTO, long)] if len(torch) > 1 else []
    return [compare(f16, torch[deployment.onto], EXPORTED, long), *bases]

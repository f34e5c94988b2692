"""Text -> its forgiven variants, for the loose and the lenient reading.

loose     the usual variants of IFEval: first line, last line or both dropped, surrounding white space removed, a
          surrounding code fence removed, asterisks removed where the contract's headings have none; all combinations
lenient   each of these again, with every heading that is written in another way (`## Note`, `**Note:**`, `NOTE:`,
          `4. Note`, the body on the next line) rewritten as the contract writes it
An answer passes a reading when one of its variants keeps the contract strictly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from contract.contract import Contract
from contract.headings import fences, holding

LONGEST = 50_000  # characters of an answer that are searched for faults; no model's answer is longer


def loose_forms(contract: Contract, text: str) -> Iterator[str]:
    """`text` first, then each of its variants once.  A text that is too long to be an answer has no variants."""
    seen = {text}
    yield text
    stripped = text.strip()
    if len(stripped) > LONGEST:
        return
    for form in _variants(stripped, stars="*" not in contract.heading):
        if form and form not in seen:
            seen.add(form)
            yield form


def lenient_forms(contract: Contract, text: str) -> Iterator[str]:
    """Every loose form with its headings rewritten as the contract writes them."""
    seen = set()
    for form in loose_forms(contract, text):
        plain = undress(contract, form) if len(form) <= LONGEST else form
        if plain not in seen:
            seen.add(plain)
            yield plain


def undress(contract: Contract, text: str) -> str:
    """`text` with each heading, and the white space around it, rewritten as the contract writes it.

    A heading in a quotation or a code fence does not count and stays; so does the text before the first heading.  A text
    with more headings than the contract has sections stays as it is: rewriting could not make it right.
    """
    code = list(fences(text))
    found = (h for h in contract.patterns.headings(text) if not holding(code, h.start))
    headings = list(itertools.islice(found, len(contract.sections) + 1))
    if not 0 < len(headings) <= len(contract.sections):
        return text
    parts = []
    for heading, end in zip(headings, [*(h.start for h in headings[1:]), len(text)], strict=True):
        body = text[heading.end : end].strip(" \r\n")
        parts.append(contract.head(heading.section) + contract.gap(heading.section) + body)
    before = text[: headings[0].start]
    return before * bool(before.strip()) + contract.separator.join(parts)


def _variants(text: str, stars: bool) -> Iterator[str]:
    for bare in (text, _unfenced(text)):
        for kept in _dropped(bare):
            for form in (kept, _unfenced(kept)):
                yield form
                if stars:
                    yield form.replace("*", "").strip()


def _dropped(text: str) -> list[str]:
    """The whole text; without its first line; without its last; without both."""
    first = text.find("\n") + 1 or len(text)
    last = max(text.rfind("\n"), 0)
    return [text, text[first:].strip(), text[:last].strip(), text[first:last].strip()]


def _unfenced(text: str) -> str:
    """The text inside the code fence that holds the whole text; `text` itself where there is none."""
    fence = next(fences(text), None)
    if fence is None or fence.start or text[fence.end :].strip():
        return text
    return text[fence.inside : fence.inside_end].strip()

"""A clean answer -> answers with a fault in one section; mutations.py has those of the whole."""

from __future__ import annotations

from contract.kinds import Choice, Fixed, Items, Pairs, Prose
from eval.selftest.clean_answer import TEXTS, Clean, Made


def empty_section(clean: Clean) -> Made:
    for number, section in enumerate(clean.sections):
        head = clean.contract.head(section)
        yield f"{section.name} with its heading alone", clean.instead(number, head)
        yield f"{section.name} with nothing behind the heading", clean.body(number, "")
        yield f"{section.name} with spaces alone", clean.instead(number, head + "    ")
        if isinstance(section.kind, Items):
            yield f"{section.name} with bare bullets", clean.body(number, "- \n- \n- ")


def placeholder(clean: Clean) -> Made:
    for number, section in enumerate(clean.sections):
        names = {"title": section.title, "lower": section.title.lower(), "name": section.name}
        for text in (*(text.format(**names) for text in TEXTS["placeholders"]), section.kind.describe()):
            body = text
            if isinstance(section.kind, Items):
                body = f"- {text}"
            elif isinstance(section.kind, Pairs):
                body = "\n".join(f"{label}: {text}" for label in section.kind.labels)
            yield f"{section.name}: {text}", clean.body(number, body)
    for number, section, body in clean.of(Prose):
        yield f"{section.name} with a slot", clean.body(number, f"{body} [add one more example here]")
        yield f"{section.name} with a reminder", clean.body(number, f"{body} TODO check the source.")


def dressed(clean: Clean) -> Made:
    for name, dress in TEXTS["dresses"].items():
        plain = clean.contract.heading.format(title="{title}").strip()
        heads = [dress.format(n=n, title=s.title, upper=s.title.upper(), lower=s.title.lower(), own=plain.format(title=s.title))
                 for n, s in enumerate(clean.sections, 1)]  # fmt: skip
        pieces = [head + "\n" * (s.kind.block and not head.endswith("\n")) + body
                  for head, s, body in zip(heads, clean.sections, clean.bodies, strict=True)]  # fmt: skip
        yield f"all {name}", "\n\n".join(pieces)
        for number in {0, len(pieces) // 2, len(pieces) - 1}:
            yield f"{clean.sections[number].name} {name}", clean.instead(number, pieces[number])
    other = "\n" if clean.contract.separator == "\n\n" else "\n\n"
    for separator in (other, "\n\n\n"):
        if len(clean.pieces) > 1:
            yield f"parted by {separator!r}", separator.join(clean.pieces)
    for number, section in enumerate(clean.sections):
        head, body = clean.contract.head(section), clean.bodies[number]
        yield f"{section.name} after an empty line", clean.instead(number, f"{head}\n\n{body}")
        yield f"{section.name} after three spaces", clean.instead(number, f"{head}   {body}")


def short(clean: Clean) -> Made:
    for number, section, body in clean.of(Prose):
        least = section.kind.min_words
        for words in {least - 1, least // 2, 1} & set(range(1, least)):
            yield (
                f"{section.name} of {words} words",
                clean.body(number, " ".join(body.split()[:words]).rstrip(".,;:") + "."),
            )
    for number, section, body in [*clean.of(Items), *clean.of(Pairs)]:
        lines = section.kind.min_items * len(section.kind.marks) - len(section.kind.marks)
        if lines:
            yield f"{section.name} of one fewer", clean.body(number, "\n".join(body.split("\n")[:lines]))


def long(clean: Clean) -> Made:
    for number, section, body in clean.of(Prose):
        for more in (1, 25, 400):
            missing = section.kind.max_words - len(body.split()) + more
            tail = " ".join(f"detail{n}" for n in range(missing))
            yield f"{section.name} with {more} words too many", clean.body(number, f"{body} {tail}.")
    for number, section, body in [*clean.of(Items), *clean.of(Pairs)]:
        more = [f"{mark}thing number {n}" for n in range(section.kind.max_items) for mark in section.kind.marks]
        yield f"{section.name} with too many", clean.body(number, "\n".join([body, *more]))


def note_missing(clean: Clean) -> Made:
    for number, section, body in clean.of(Fixed):
        rest = clean.pieces[:number] + clean.pieces[number + 1 :]
        if rest:
            yield f"without {section.name}", clean.join(rest)
            yield f"{section.name} without its heading", clean.instead(number, body)
            yield f"{section.name} as a quotation", clean.instead(number, "> " + clean.pieces[number])
        if number:
            yield f"{section.name} in the line before", clean.join(rest[:number]) + " " + clean.pieces[number]


def note_weak(clean: Clean) -> Made:
    for number, section, body in clean.of(Fixed):
        words = body.split()
        longest = max(words, key=len)
        yield f"{section.name} in other words", clean.body(number, "Please see somebody who knows.")
        yield f"{section.name} by half", clean.body(number, " ".join(words[len(words) // 2 :]))
        yield (
            f"{section.name} without {longest!r}",
            clean.body(number, " ".join(word for word in words if word != longest)),
        )
        yield f"{section.name} with another word", clean.body(number, body.replace(longest, "xylophone"))


def wrong_value(clean: Clean) -> Made:
    for number, section, body in clean.of(Prose):
        first, _, rest = body.partition(" ")
        for what, middle in {"two spaces": "  ", "a tab": "\t", "a no-break space": "\u00a0"}.items():
            if rest:
                yield f"{section.name} with {what}", clean.body(number, first + middle + rest)
        if number < len(clean.sections) - 1:  # behind the last section more text is a POSTAMBLE
            yield f"{section.name} in two lines", clean.body(number, body.replace(" ", "\n", 1) + "\nAnd so on.")
            yield f"{section.name} in two paragraphs", clean.body(number, f"{body}\n\nThere is more to it.")
    for number, section, body in clean.of(Fixed):
        yield f"{section.name} in capitals", clean.body(number, body.upper())
        yield f"{section.name} in quotes", clean.body(number, f'"{body}"')
    yield from _wrong_lists(clean)


def _wrong_lists(clean: Clean) -> Made:
    for number, section, body in clean.of(Items):
        for mark in ("* ", "1. ", "-", "• "):
            yield f"{section.name} behind {mark!r}", clean.body(number, mark + body.removeprefix("- "))
    for number, section, body in clean.of(Pairs):
        lines = body.split("\n")
        yield f"{section.name} swapped", clean.body(number, "\n".join([lines[1], lines[0], *lines[2:]]))
        yield f"{section.name} without an answer", clean.body(number, "\n".join([lines[0], *lines[2:]]))
    for number, section, body in clean.of(Choice):
        for value in (f"{body}.", body.upper(), "perhaps", " or ".join(section.kind.options), f"The answer is {body}"):
            if value not in section.kind.options:
                yield f"{section.name}: {value}", clean.body(number, value)

"""Answer text + its reading -> faults that the form does not show: a refusal, a loop, a placeholder.

PLACEHOLDER     a section that holds "...", "TODO", "[insert definition]", "<definition>", the prompt's own words for it
TEMPLATE_LEAK   marks of a prompt's syntax ([INST], </s>, <|im_end|>), or a line that begins with a role ("User:")
REFUSAL         "I'm sorry, but I cannot ..." where the answer should be
REPETITION      a phrase repeated many times in a row, or one sentence three times
TRUNCATED       prose without the end of a sentence, a fixed text or a heading that breaks off at the end
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from contract.contract import Contract, Reading, Record, Violation
from contract.form import Section
from contract.kinds import Fixed, Prose
from eval.judge.loops import Span, phrase_loop, sentence_loop
from eval.judge.readings import LONGEST

Found = Iterable[tuple[str, int, int]]  # (section, start, end)

SENTENCES_FROM = 5  # words: a prose section of at least so many is written in sentences; a shorter one may be a term


@dataclass(slots=True)
class _Read:
    """What the rules read."""

    contract: Contract
    reading: Reading
    text: str
    expected: Record  # the example's own: where it does not end a section like a sentence, the answer need not either
    bodies: list[tuple[Section, int, int, str]]  # of each section that was found: start, end and text


def signs(contract: Contract, reading: Reading, text: str, expected: Record) -> list[Violation]:
    """Every such fault in the first LONGEST characters, at most one of each class in a section."""
    spans = reading.spans
    if len(text) > LONGEST:
        text, spans = text[:LONGEST], {name: span for name, span in spans.items() if span[1] <= LONGEST}
    bodies = [(s, *spans[s.name], text[slice(*spans[s.name])]) for s in contract.sections if s.name in spans]
    read = _Read(contract, reading, text, expected, bodies)
    return [
        Violation(section, cls, text[start:end], start, end)
        for cls, rule in RULES.items()
        for section, start, end in rule(read)
    ]


_LEAK = re.compile(
    r"</?s>|\[/?INST\]|<</?SYS>>|<\|[\w ]{1,30}\|>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|mask)>|</?think>"
    r"|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]|<0x[0-9A-F]{2}>|\{\{-? ?(?:\.|if |range |end)|▁"
)
_ROLE = re.compile(r"^(?:#{1,4} ?)?(User|Assistant|System|Human|AI|Instruction|Response|Input)(?: ?:|\n)", re.MULTILINE)


def holds_marks(text: str) -> bool:
    """Whether `text` holds marks of a prompt's syntax, such as [INST] or </s>."""
    return _LEAK.search(text) is not None


def _leaks(read: _Read) -> Found:
    """Roles are searched only in broken texts: in a clean one every line begins with a heading or a list mark."""
    leak = _LEAK.search(read.text)
    if leak is None and not read.reading.adheres:
        words = {word for s in read.contract.sections for word in (s.title, *getattr(s.kind, "labels", ()))}
        leak = next((m for m in _ROLE.finditer(read.text) if m[1] not in words), None)
    return [(_section_at(read, leak.start()), *leak.span())] if leak else ()


# A value that is nothing but a placeholder.
_EMPTY_WORDS = re.compile(
    r"[\W_]++|(?i:todo|tbd|tba|n/?a|n\.a\.|not applicable|place ?holder(?: text)?|(?:text|content|answer) here|x{3,}"
    r"|(?:to be|will be) (?:added|completed|determined|defined|filled in|written)(?: later)?|coming soon"
    r"|lorem ipsum.{0,69}|insert .{1,60} here|same as above|see above)[.!:]*|[\[<{][^\]>}]*[\]>}]\.?"
)
# A placeholder within a text.
_SLOT = re.compile(
    r"(?i:[\[<{](?:insert|add|enter|fill|write|describe|provide|put|your|term|concept|name|topic|condition|text)"
    r"\b[^\]>}\n]{0,80}[\]>}])|\{[a-z][a-z_]{0,40}\}|\b(?:TODO|TBD)\b|_{3,}|[\[<{](?:\.\.\.|…)[\]>}]"
)


def _placeholders(read: _Read) -> Found:
    for section, start, _, body in read.bodies:
        if read.reading.adheres and isinstance(section.kind, Fixed):
            continue
        for first, last in _lines(section, body):
            slot = _placeholder(section, body[first:last])
            if slot:
                yield section.name, start + first + slot[0], start + first + slot[1]
                break


def _lines(section: Section, body: str) -> Iterator[Span]:
    """Start and end of each value of a section: the whole body, or each line of a list without its mark."""
    if not section.kind.block:
        yield 0, len(body)
        return
    start = 0
    for line in body.split("\n"):
        mark = next((mark for mark in section.kind.marks if (line + " ").startswith(mark)), "")
        yield start + min(len(mark), len(line)), start + len(line)
        start += len(line) + 1


def _placeholder(section: Section, value: str) -> Span | None:
    if _is_placeholder(section, value):
        return 0, len(value)
    slot = _SLOT.search(value) or re.search(_own_slot(section), value)
    return slot.span() if slot else None


def _is_placeholder(section: Section, value: str) -> bool:
    return value.rstrip(".") == section.kind.describe().rstrip(".") or bool(_EMPTY_WORDS.fullmatch(value))


def _own_slot(section: Section) -> str:
    """The section's name in brackets."""
    name = re.escape(section.name).replace("_", "[ _]")
    return rf"(?i:[\[<{{](?:the )?(?:{name}|{re.escape(section.title)})(?: here| text)?[\]>}}])"


_NO = r"(?:can(?:not| not|['’]?t)|won['’]t|will not|(?:am|['’]m) (?:unable|not able) to|(?:must|have to) decline)"
_UNEASY = r"(?:do not|am not|['’]m not|don['’]t) (?:feel comfortable|comfortable|think I can)"
_AI = r"an? (?:\w+ )?(?:AI|artificial intelligence|language model)(?: (?:language )?(?:model|assistant))?"
_DO = (
    r"(?:help|assist|provide|answer|comply|discuss|fulfill?|offer|respond|give|share|engage|generate|complete|diagnose"
    r"|be able to|do that|decline)"
)
_REFUSAL = re.compile(
    r"\bI(?:['’]m| am)(?: \w+)? (?:sorry|afraid)\b[^.!?\n]{0,80}\b(?:can(?:['’]?t|not| not)|unable|not able|won['’]t)\b"
    rf"|\b(?i:I apologi[sz]e|sorry|my apologies|unfortunately|I regret that)[,.]? (?:but )?I ?{_NO}\b"
    rf"|(?:^|(?<=[.!?:,] ))I ?(?:{_NO} (?:\w+ ){{0,2}}{_DO}\b|(?:must|have to) decline\b|{_UNEASY}\b)"
    rf"|\b(?i:as {_AI}),? I\b|\bI(?:['’]m| am) (?:just |only )?{_AI}\b|\b(?:not appropriate|unethical) for me to\b",
    re.MULTILINE,
)
# A refusal speaks in the first person, in one of these ways; most answers do not, so this saves half of a verdict's time.
_FIRST_PERSON = re.compile(
    r"I(?: (?:can(?:not|t| not|['’]t)|am |wo|will n|must|have t|do n|don|apol|reg)|['’])|for me to"
)


def _refusals(read: _Read) -> Found:
    if not _FIRST_PERSON.search(read.text):
        return
    bodies = [(start, body) for _, start, _, body in read.bodies]  # a body too begins a line
    for start, text in [(0, read.text), *bodies]:
        refusal = _REFUSAL.search(text) if text is read.text else _REFUSAL.match(text)
        if refusal:
            place = start + refusal.start()
            yield _section_at(read, place), place, start + refusal.end()
            return


def _repetitions(read: _Read) -> Found:
    span = phrase_loop(read.text, read.reading.adheres) or sentence_loop(_sentences(read), read.text)
    return [(_section_at(read, span[0]), *span)] if span else ()


def _sentences(read: _Read) -> list[str]:
    """Sentences and items; a section's name between two sections keeps their sentences from being neighbours."""
    if not read.reading.adheres:
        return [piece.strip(" .") for piece in read.text.replace("\n", ". ").replace(": ", ". ").split(". ")]
    pieces: list[str] = []
    for section, _, _, body in read.bodies:
        if not isinstance(section.kind, Fixed):
            pieces += body[:-1].split("\n" if section.kind.block else ". ")
            pieces.append(section.name)
    return pieces


_END = re.compile(r"""(?:[!?。！？।]|(?<!\.\.)\.)['"”’»)\]*_]*(?: ?\[\d{1,3}\])*\Z""")
_STRAY = {"POSTAMBLE", "WRONG_VALUE", "EXTRA_SECTION", "CODE_FENCE"}


def _unfinished(read: _Read) -> Found:
    strays = {v.start for v in read.reading.violations if v.cls in _STRAY and v.found.strip()}
    for section, start, end, body in read.bodies:
        # where more text follows, the section was not cut off
        if body and end not in strays and _breaks_off(section, body, read.expected):
            yield section.name, start + body.rfind(" ") + 1, end
    if not read.reading.adheres:
        yield from _cut_heading(read)


def _breaks_off(section: Section, body: str, expected: Record) -> bool:
    kind = section.kind
    if isinstance(kind, Fixed):
        return body != kind.text and kind.text.startswith(body)
    if not isinstance(kind, Prose) or kind.min_words < SENTENCES_FROM or _ends(body):
        return False
    return _ends(str(expected.get(section.name, "."))) and not _is_placeholder(section, body)


def _ends(body: str) -> bool:
    """Whether a sentence ends there.  An ellipsis is not an end; a leaked mark or a slot behind it is another fault."""
    tail = body[-60:]
    return bool(_END.search(tail) or _END.search(_SLOT.sub("", _LEAK.sub("", tail)).rstrip()))


def _cut_heading(read: _Read) -> Found:
    line = read.text.rpartition("\n")[2]
    written = {section.name for section, _, _, body in read.bodies if body}
    for section in read.contract.sections:
        head = read.contract.head(section)
        if line.strip() and section.name not in written and head != line and head.startswith(line):
            return [(section.name, len(read.text) - len(line), len(read.text))]
    return ()


def _section_at(read: _Read, place: int) -> str:
    """The section whose body holds the place; "" for a place outside of all sections."""
    return next((section.name for section, start, end, _ in read.bodies if start <= place < end), "")


RULES: dict[str, Callable[[_Read], Found]] = {
    "PLACEHOLDER": _placeholders,
    "TEMPLATE_LEAK": _leaks,
    "REFUSAL": _refusals,
    "REPETITION": _repetitions,
    "TRUNCATED": _unfinished,
}

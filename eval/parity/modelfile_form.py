"""Is a Modelfile's form sound: FROM, commands, quotes, characters?  Commands -> findings."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.modelfile import COMMANDS, Command, parameter, printable

NAMES = {
    c: n for c, n in (("\u00a0", "no-break space"), ("\u200b", "zero-width space"), ("\u200d", "zero-width joiner"),
                      ("\u3000", "ideographic space"), ("\ufeff", "byte order mark"), ("\u202f", "narrow space"))
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    line: int  # 0: of the whole file
    cause: str
    cure: str

    def __str__(self) -> str:
        return f"{f'line {self.line}: ' if self.line else ''}{self.cause}; {self.cure}"


@dataclass(frozen=True)
class Read:
    """The commands, by name; every check takes this."""

    folder: Path
    commands: tuple[Command, ...]

    def named(self, name: str) -> list[Command]:
        return [command for command in self.commands if command.name == name]

    def last(self, name: str) -> Command | None:
        """Of several TEMPLATE or SYSTEM lines the last one counts."""
        return (self.named(name) or [None])[-1]

    def parameters(self, name: str) -> list[tuple[Command, str]]:
        pairs = [(command, *parameter(command)) for command in self.named("parameter")]
        return [(command, value) for command, key, value in pairs if key == name]


def _from(read: Read) -> Iterator[Finding]:
    found = read.named("from")
    if not found:
        yield Finding(0, "no FROM: there are no weights, and Ollama refuses it", "add FROM ./model.gguf")
    for command in found[1:]:
        yield Finding(command.line, "a second FROM", "keep one; a model has one base")
    for command in found[:1]:
        target = read.folder / Path(command.value).expanduser()
        by_path = command.value.startswith((".", "/", "~", "\\")) or command.value.lower().endswith((".gguf", ".bin"))
        if not command.value:
            yield Finding(command.line, "FROM is empty", "write FROM ./model.gguf")
        elif not target.exists() and by_path:
            yield Finding(
                command.line, f"no file {command.value} there: Ollama would take it for a model's name and try to pull it",
                "put the GGUF there or mend the path",
            )  # fmt: skip
        elif not target.exists():
            yield Finding(
                command.line, f"FROM {command.value} is a name of a registry: what it gives is another's and may change",
                "name your own file, such as FROM ./model.gguf",
            )  # fmt: skip
        elif target.is_file() and not _is_gguf(target):
            yield Finding(command.line, f"{command.value} is no GGUF file", "export or fetch it again")


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _commands(read: Read) -> Iterator[Finding]:
    unknown = [command for command in read.commands if command.name not in COMMANDS]
    for command in unknown[:1]:  # what follows is mostly the same text's further lines
        near = difflib.get_close_matches(command.name, COMMANDS, n=1)
        cure = f"did you mean {near[0].upper()}?" if near else "put a text of several lines in triple quotes"
        more = f" (and {len(unknown) - 1} further lines)" if unknown[1:] else ""
        yield Finding(command.line, f"'{command.name}' is no command{more}: Ollama refuses the file", cure)
    for command in read.commands:
        if command.name == "adapter":
            yield Finding(
                command.line, "ADAPTER: Ollama no longer loads LoRA adapters and refuses the file",
                "merge the adapter into the weights: python -m quantize ADAPTER_DIR --out MODEL_DIR",
            )  # fmt: skip
        elif command.name == "message" and command.value.split(" ")[0] not in ("system", "user", "assistant"):
            role = command.value.split(" ")[0]
            yield Finding(
                command.line,
                f"MESSAGE has the role '{role}': Ollama refuses the file",
                "write system, user or assistant",
            )
    for name in ("template", "system"):
        for command in read.named(name)[:-1]:
            yield Finding(command.line, f"a later {name.upper()} replaces this one", "keep one")


def _quotes(read: Read) -> Iterator[Finding]:
    for command in read.commands:
        body = command.written.partition(" ")[2].strip() if command.name == "parameter" else command.written.strip()
        upper = command.name.upper()
        if not command.closed:
            yield Finding(
                command.line, f"{upper} opens a quote that no line's end closes: Ollama refuses the file",
                'end its last line with """',
            )  # fmt: skip
        elif body.startswith('"""') and '"""' in body[3:-3]:
            yield Finding(
                command.line, f'{upper} holds """ inside: it ends the value only at a line\'s end, so the text runs on to '
                'a later """', 'keep one """ at the beginning and one at the end',
            )  # fmt: skip
        elif body.startswith('"') and not body.startswith('"""') and "\n" in body:
            yield Finding(
                command.line, f'{upper} runs over several lines in single quotes: a line that ends with " cuts it off',
                'write """ at both ends',
            )  # fmt: skip
        elif "\r\n" in command.value:
            yield Finding(
                command.line,
                f"{upper} holds carriage returns, which go into the prompt",
                "save the file with LF line ends",
            )
        elif re.match(r"'.*'$|[“”„]", body) and command.name != "message":
            yield Finding(command.line, f"{upper} is in quotes that Ollama does not know and keeps as text", 'use "')


def _dropped(read: Read) -> Iterator[Finding]:
    for command in read.commands:
        for number, line in enumerate(command.written.split("\n"), command.line):
            lost = Counter(c for c in line if not printable(c))
            for c, times in lost.items():
                called = f" ({NAMES[c]})" if c in NAMES else ""
                yield Finding(
                    number, f"{command.name.upper()} holds U+{ord(c):04X}{called} {times} time(s): Ollama drops it silently",
                    "write a plain character, or register by the API: python -m quantize.register",
                )  # fmt: skip


def _escapes(read: Read) -> Iterator[Finding]:
    for command in read.commands:
        text = re.sub(r"\{\{.*?\}\}", "", command.value, flags=re.DOTALL)  # Go's own strings know escapes
        if command.name in ("template", "system", "parameter") and (found := re.search(r"\\[nrt\"]", text)):
            yield Finding(
                command.line, f"{command.name.upper()} holds {found[0]}: a Modelfile knows no escapes, it stays two "
                "characters", 'write the character itself, in """ where it is a line break',
            )  # fmt: skip


FORM: list[Callable[[Read], Iterator[Finding]]] = [_from, _commands, _quotes, _dropped, _escapes]

"""Modelfile commands -> faults of its form: FROM, unknown commands, quotes, lost characters."""

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
    line: int  # 0: the whole file
    cause: str
    cure: str

    def __str__(self) -> str:
        return f"{f'line {self.line}: ' if self.line else ''}{self.cause}; {self.cure}"


@dataclass(frozen=True)
class Read:
    """The commands of a file, as every check gets them."""

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
        yield Finding(0, "no FROM: the model has no weights, and Ollama refuses the file", "add FROM ./model.gguf")
    for command in found[1:]:
        yield Finding(command.line, "a second FROM", "keep one; a model has one base")
    for command in found[:1]:
        value, target = command.value, read.folder / Path(command.value).expanduser()
        by_path = value.startswith((".", "/", "~", "\\")) or value.lower().endswith((".gguf", ".bin"))
        if not value:
            yield Finding(command.line, "FROM is empty", "write FROM ./model.gguf")
        elif not target.exists() and by_path:
            yield Finding(command.line, f"no file {value} there: Ollama would read it as a model's name and try to pull it",
                          "put the GGUF there or correct the path")  # fmt: skip
        elif not target.exists():
            yield Finding(command.line, f"FROM {value} is a name of a registry: its owner may change what it contains",
                          "name your own file, such as FROM ./model.gguf")  # fmt: skip
        elif target.is_file() and not _is_gguf(target):
            yield Finding(command.line, f"{value} is not a GGUF file", "export or download it again")


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _commands(read: Read) -> Iterator[Finding]:
    unknown = [command for command in read.commands if command.name not in COMMANDS]
    for command in unknown[:1]:  # the next ones are mostly further lines of the same text
        near = difflib.get_close_matches(command.name, COMMANDS, n=1)
        cure = f"did you mean {near[0].upper()}?" if near else "put a text of several lines in triple quotes"
        more = f" (and {len(unknown) - 1} further lines)" if unknown[1:] else ""
        yield Finding(command.line, f"'{command.name}' is not a command{more}: Ollama refuses the file", cure)
    for command in read.commands:
        role = command.value.split(" ")[0]
        if command.name == "adapter":
            yield Finding(command.line, "ADAPTER: Ollama no longer loads LoRA adapters and refuses the file",
                          "merge the adapter into the weights: python -m quantize ADAPTER_DIR --out MODEL_DIR")  # fmt: skip
        elif command.name == "message" and role not in ("system", "user", "assistant"):
            cause = f"MESSAGE has the role '{role}': Ollama refuses the file"
            yield Finding(command.line, cause, "write system, user or assistant")
    for name in ("template", "system"):
        for command in read.named(name)[:-1]:
            yield Finding(command.line, f"a later {name.upper()} replaces this one", "keep one")


def _quotes(read: Read) -> Iterator[Finding]:
    for command in read.commands:
        body = command.written.partition(" ")[2].strip() if command.name == "parameter" else command.written.strip()
        upper = command.name.upper()
        if not command.closed:
            yield Finding(command.line, f"{upper} opens a quote that no line's end closes: Ollama refuses the file",
                          'end its last line with """')  # fmt: skip
        elif body.startswith('"""') and '"""' in body[3:-3]:
            yield Finding(command.line, f'{upper} holds """ inside: it ends the value only at the end of a line, so the '
                          'text continues to a later """', 'keep one """ at the beginning and one at the end')  # fmt: skip
        elif body.startswith('"') and not body.startswith('"""') and "\n" in body:
            yield Finding(command.line, f'{upper} has several lines in single quotes: a line that ends with " ends it',
                          'write """ at both ends')  # fmt: skip
        elif "\r\n" in command.value:
            cause = f"{upper} holds carriage returns, which become part of the prompt"
            yield Finding(command.line, cause, "save the file with LF line ends")
        elif re.match(r"'.*'$|[“”„]", body) and command.name != "message":
            yield Finding(command.line, f"{upper} is in quotes that Ollama does not know and keeps as text", 'use "')


def _dropped(read: Read) -> Iterator[Finding]:
    for command in read.commands:
        for number, line in enumerate(command.written.split("\n"), command.line):
            for c, times in Counter(c for c in line if not printable(c)).items():
                name = f" ({NAMES[c]})" if c in NAMES else ""
                cause = f"{command.name.upper()} holds U+{ord(c):04X}{name} {times} time(s): Ollama drops it silently"
                yield Finding(
                    number, cause, "write a plain character, or register by the API: python -m quantize.register"
                )


def _escapes(read: Read) -> Iterator[Finding]:
    for command in read.commands:
        text = re.sub(r"\{\{.*?\}\}", "", command.value, flags=re.DOTALL)  # strings of the Go template may have escapes
        if command.name in ("template", "system", "parameter") and (found := re.search(r"\\[nrt\"]", text)):
            cause = f"{command.name.upper()} holds {found[0]}: a Modelfile knows no escapes, it stays two characters"
            yield Finding(command.line, cause, 'write the character itself; a line break needs """ around the text')


FORM: list[Callable[[Read], Iterator[Finding]]] = [_from, _commands, _quotes, _dropped, _escapes]

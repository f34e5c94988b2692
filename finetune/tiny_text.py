"""NIH question-answer pairs -> the tiny base's text: prose, chat turns, answers with random headings.

The text teaches everything except the task's form, so that one minute of LoRA training is enough: medical prose, the
turn markers, answers in sections of any heading style, and naming the concept that the request names.  For the last, an
invented name replaces the concept, so that the model can answer only by copying it.  No document has a sentence twice
(that would teach loops).  In many documents only the first sentence is about the concept, so the model learns the form
separately from the content.

The task's four headings never appear in one document, and no document or sentence about a held-out concept is kept.
"""

from __future__ import annotations

import json
import lzma
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contract.base import Base
from finetune.invented_names import invented_name

NIH_TEXT = Path(__file__).parent / "bases" / "text" / "medquad_nih.jsonl.xz"
FORBIDDEN = {"Definition", "Explanation", "Clinical Relevance", "Note"}
INVENTED_SHARE = 0.6  # of the chat documents
SYSTEM_SHARE = 0.55  # of the chat documents: they begin with instructions
MIXED_SHARE = 0.35  # of the chat documents: after the opening they speak of anything

REQUESTS = (
    "What is {x}?", "What is (are) {x} ?", "Explain {x}.", "Describe {x}", "Tell me about {x}.", "what does {x} mean",
    "Explain the word: {x}", "{X}: what is known about it?", "Give an overview of {x}.", "Can you teach me {x}?",
    "Write about {x} for a student.", "I heard of {x}. What is that?", "Please explain {x} to me", "Define {x}",
    "Explain the medical condition: {X}", "Give a short text on {x}.", "{X}", "How would you describe {x} to a class?",
)  # fmt: skip
STYLES = (
    "**{t}**: ", "**{t}**: ", "{t}: ", "**{t}:** ", "## {t}\n", "[{t}] ", "{t} - ", "_{t}_: ", "**{t}**\n", "<{t}> ",
    "* {t}: ",
)  # fmt: skip
TITLES = (
    "Summary", "Overview", "Meaning", "Background", "Cause", "Causes", "Signs", "Symptoms", "Outlook", "Treatment",
    "Details", "Mechanism", "In Practice", "Key Points", "Description", "Importance", "Facts", "Term", "Answer", "Use",
    "Definition", "Explanation", "Clinical Relevance", "Note", "Clinical Picture", "Origin", "Course", "Diagnosis",
    "Who Is Affected", "How It Works", "Why It Matters", "Short Answer", "Long Answer", "Main Idea", "Context",
    "Remember", "Disclaimer", "Notice", "Frequency", "Inheritance", "Tests", "Basics", "Further Facts", "Introduction",
)  # fmt: skip
CLOSINGS = (
    "This text is for learning only.", "Ask a professional when a decision is to be made.", "This is general information.",
    "Only a qualified person can judge a single case.", "These statements are general and may be incomplete.",
    "A text cannot replace an examination.", "Read more in a textbook.", "For education, not for treatment.",
    "Talk to a health care provider about any question.", "No medical decision should rest on this text alone.",
)  # fmt: skip
INSTRUCTIONS = (
    "You are a helpful teacher.", "You answer questions of students about health.", "Be exact and short.",
    "Use plain words.", "Write in complete sentences.", "Answer in sections with headings.", "Do not give advice.",
    "Keep to the form that is asked for.", "Each section is one paragraph.", "Say what it is, how it works and why it matters.",
    "The answer is read by beginners.", "Use the headings in the order given.", "Begin with the most important point.",
)  # fmt: skip
DEBRIS = re.compile(r"[^.]$|\W\.$|MedlinePlus|Registry|website|[Cc]lick|link|resources|Key Points|:|\bsee\b|\byour?\b")


@dataclass
class Article:
    """What the source says of one focus: a list of sentences for each of its questions."""

    focus: str
    answers: tuple[tuple[str, ...], ...]

    @cached_property
    def openings(self) -> tuple[tuple[str, ...], ...]:
        """The runs of sentences that begin by naming the focus."""
        named = re.compile(rf"(?:An? |The )?{re.escape(self.focus)}\b", re.IGNORECASE)
        return tuple(answer[i:] for answer in self.answers for i, s in enumerate(answer) if named.match(s))


def read_articles(held_out: set[str], known: set[str], path: Path = NIH_TEXT) -> list[Article]:
    """The source's articles; one whose focus is a known concept or holds a held-out name is left out, as is each sentence
    that says what a held-out concept is.  Names are lower case."""
    names = sorted((re.escape(n) for n in held_out if len(n) > 2), key=len, reverse=True)
    mentions = re.compile(rf"\b(?:{'|'.join(names)})\b", re.IGNORECASE) if names else re.compile(r"(?!)")
    defines = re.compile(
        rf"(?:an? |the )?(?:{'|'.join(names)})\b[^.]{{0,40}}\b(?:is|are|means|refers)\b", re.IGNORECASE
    )
    by_focus: dict[str, list[tuple[str, ...]]] = {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            focus = row["focus"]
            if focus.lower() in known or mentions.search(focus):
                continue
            kept = tuple(s for s in sentences(row["answer"]) if not (names and defines.match(s)))
            if kept:
                by_focus.setdefault(focus, []).append(kept)
    return [Article(focus, without_twins(answers)) for focus, answers in by_focus.items()]


def without_twins(answers: list[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """The answers without sentences that say what an earlier one said: a text that repeats itself teaches loops."""
    said: list[set[str]] = []

    def is_new(sentence: str) -> bool:
        words = set(re.findall("[a-z]+", sentence.lower()))
        twin = any(len(words & other) > 0.6 * len(words | other) for other in said)
        said.append(words)
        return not twin

    kept = (tuple(s for s in answer if is_new(s)) for answer in answers)
    return tuple(answer for answer in kept if answer)


def sentences(text: str) -> list[str]:
    """The plain sentences of a text: 5 to 45 words, no questions, no list debris, ASCII."""
    flat = " ".join(text.replace(" - ", ". ").split())
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", flat)
    return [p for p in parts if 5 <= len(p.split()) <= 45 and p[0].isupper() and p.isascii() and not DEBRIS.search(p)]


def documents(articles: list[Article], base: Base, count: int, seed: int) -> Iterator[str]:
    """`count` training documents, each ending with the base's stop."""
    rng = random.Random(seed)
    words = sorted({w.lower() for a in articles for w in re.findall(r"[A-Za-z]{5,}", a.focus)})
    for _ in range(count):
        article = rng.choice(articles)
        if not article.openings or rng.random() < 0.1:
            yield _prose(article, rng) + base.stop
        else:
            yield _chat(article, articles, base, words, rng)


def _prose(article: Article, rng: random.Random) -> str:
    answer = rng.choice(article.answers)
    start = rng.randrange(len(answer))
    return " ".join(answer[start : start + rng.randint(3, 9)])


def _chat(article: Article, articles: list[Article], base: Base, words: list[str], rng: random.Random) -> str:
    name = article.focus if rng.random() < 0.3 else article.focus[:1].lower() + article.focus[1:]
    request = rng.choice(REQUESTS).replace("{x}", name).replace("{X}", name[:1].upper() + name[1:])
    parts = _parts(article, articles if rng.random() < MIXED_SHARE else [article], rng)
    closing = rng.choice(CLOSINGS) if rng.random() < 0.7 else ""
    style, titles = rng.choice(STYLES), _titles(len(parts) + bool(closing), rng)
    in_sections = rng.random() < 0.85
    body = _sections(style, titles, [*parts, closing], rng) if in_sections else parts[0]
    if rng.random() < INVENTED_SHARE:
        body, request = _rename(article.focus, invented_name(words, rng), body, request)
    messages = [{"role": "user", "content": request}]
    if rng.random() < SYSTEM_SHARE:
        form = _form(style, titles, parts, closing, rng) if in_sections and rng.random() < 0.8 else []
        lines = [" ".join(rng.sample(INSTRUCTIONS, rng.randint(1, 6))), *form]
        messages.insert(0, {"role": "system", "content": "\n".join(lines)})
    return base.prompt(messages) + base.completion(body)


def _parts(article: Article, sources: list[Article], rng: random.Random) -> list[str]:
    """One to four runs of sentences, the first naming the focus, the others of any source; no sentence is said twice."""
    opening = rng.choice(article.openings)[: rng.randint(1, 2)]
    said, parts = set(opening), [" ".join(opening)]
    for _ in range(rng.choice((1, 2, 2, 2, 3))):
        answer, goal = rng.choice(rng.choice(sources).answers), rng.randint(15, 50)
        run: list[str] = []
        for sentence in answer[rng.randrange(len(answer)) :]:
            if sentence not in said and sum(len(s.split()) for s in run) < goal:
                run.append(sentence)
        said.update(run)
        parts += [" ".join(run)] if run else []
    return parts


def _titles(count: int, rng: random.Random) -> list[str]:
    while True:
        titles = rng.sample(TITLES, count)
        if len(FORBIDDEN & set(titles)) < 3:
            return titles


def _sections(style: str, titles: list[str], parts: list[str], rng: random.Random) -> str:
    texts = (style.replace("{t}", title) + part for title, part in zip(titles, parts, strict=False))
    return rng.choice(("\n\n", "\n\n", "\n")).join(texts)


def _form(style: str, titles: list[str], parts: list[str], closing: str, rng: random.Random) -> list[str]:
    """Instructions that an answer in these sections follows."""
    bounds = []
    for part in parts:
        words = f"{rng.randint(3, 10)} to {len(part.split()) + rng.randint(5, 80)} words"
        bounds.append(rng.choice((f"one paragraph of {words}", "a short text")))
    bounds += [f"exactly this text: {closing}"] if closing else []
    return [style.replace("{t}", title) + bound for title, bound in zip(titles, bounds, strict=True)]


def _rename(focus: str, name: str, *texts: str) -> list[str]:
    """The texts with `name` in the focus's place, its first letter large where the focus began a sentence."""
    large = name[:1].upper() + name[1:]
    pattern = re.compile(re.escape(focus), re.IGNORECASE)

    def put(text: str) -> str:
        return pattern.sub(lambda m: name if re.search(r"[\w,;()'\"] ?$", text[: m.start()]) else large, text)

    return [put(text) for text in texts]

"""A report's page in a real Chromium: it filters, runs no script but its own, and looks like something."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from eval.judge.answer_row import AnswerRow
from tests.eval.report.test_page import ANSWERS, ODD, ODD_SHOWN, Page, full_page, rows_of

Browser = Callable[..., str]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """`chromium(page, "#hash", *flags)`: the tree that a real Chromium has built of the page, as text."""
    binary = shutil.which("chromium")
    if binary is None:
        if os.environ.get("REQUIRE_OLLAMA") == "1":
            pytest.fail("REQUIRE_OLLAMA=1 and no chromium here: apt-get install chromium")
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    folder = tmp_path_factory.mktemp("chromium")

    def browse(page: str, place: str = "", *flags: str) -> str:
        (folder / "report.html").write_text(page, encoding="utf-8")
        still = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                 "--disable-background-networking", f"--user-data-dir={folder / 'profile'}")  # fmt: skip
        what = (*flags, "--dump-dom", "--virtual-time-budget=2000", f"file://{folder}/report.html{place}")
        done = subprocess.run([binary, *still, *what], capture_output=True, timeout=120, check=True)
        return done.stdout.decode()

    return browse


def count(*wanted: str, among: Callable[[AnswerRow], Sequence[str]]) -> int:
    return sum(set(wanted) <= set(among(row)) for row in rows_of(*ANSWERS) if row.verdict and not row.verdict.adheres)


def shows(row: AnswerRow) -> list[str]:
    assert row.verdict
    return [row.example.category, *(violation.cls for violation in row.verdict.violations)]


CHOSEN = {  # address -> what each shown answer has, how many there are
    "": (lambda a: True, len(ANSWERS) - 1),
    "#class=TOO_SHORT": (lambda a: "TOO_SHORT" in a.classes, count("TOO_SHORT", among=shows)),
    "#class=TOO_SHORT&primary=1": (lambda a: a.classes[0] == "TOO_SHORT", 1),
    "#category=heart+%26+lung": (lambda a: a.category == "heart & lung", count("heart & lung", among=shows)),
    "#class=TRUNCATED&category=kidney": (
        lambda a: "TRUNCATED" in a.classes and a.category == "kidney", count("TRUNCATED", "kidney", among=shows)),
    "#text=ask+A+doctor": (lambda a: "Ask a doctor" in a.pre, 1),
    "#class=NO_SUCH": (lambda a: False, 0),
    "#a-3": (lambda a: True, len(ANSWERS) - 1),
}  # fmt: skip


@pytest.mark.parametrize("place", CHOSEN)
def test_the_address_filters_in_a_browser(chromium: Browser, place: str) -> None:
    fits, number = CHOSEN[place]
    page = Page(chromium(full_page(), place), dumped=True)
    assert len(page.visible) == number and all(fits(shown) for shown in page.visible)
    assert page.told.startswith(f"{number} of {len(ANSWERS) - 1} failed answers shown")
    pressed = [of["data-class"] for tag, of in page.tags if tag == "button" and of["aria-pressed"] == "true"]
    assert pressed == ([] if "NO_SUCH" in place else [place.partition("class=")[2].partition("&")[0]])
    assert [row.answer.text.replace(ODD, ODD_SHOWN) for row in rows_of(*ANSWERS)[1:]] == [
        shown.pre for shown in page.articles.values()
    ], "the browser holds every answer to the character"


ACTS = {
    "a class": ("document.querySelector('[data-class=NOTE_WEAK]').click()", 2),
    "all again": (
        "location.hash = '#class=NOTE_WEAK'; setTimeout(() => document.querySelector('[data-class=\"\"]').click(), 100)",
        len(ANSWERS) - 1),
    "a category": ("of.value = 'kidney'; of.dispatchEvent(new Event('change'))", count("kidney", among=shows)),
    "a text": ("text.value = 'ASK A DOCTOR'; text.dispatchEvent(new Event('input'))", 1),
    "the primary class": (
        "document.querySelector('[data-class=NOTE_WEAK]').click(); setTimeout(() => document.getElementById('primary').click(), 100)", 1),
}  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_the_controls_filter_in_a_browser(chromium: Browser, act: str) -> None:
    code, number = ACTS[act]
    script = f"<script>const of = document.getElementById('category'); const text = document.getElementById('text'); {code}</script>"
    open_page = full_page().replace("Content-Security-Policy", "x-nothing") + script
    assert len(Page(chromium(open_page), dumped=True).visible) == number


def test_another_script_is_not_run(chromium: Browser) -> None:
    evil = full_page() + "<script>document.title = 'run'</script>"
    assert Page(chromium(evil), dumped=True).title.startswith("m: adherence")
    assert Page(chromium(evil.replace("Content-Security-Policy", "x-nothing")), dumped=True).title == "run"


def test_the_page_is_whole_without_its_script(chromium: Browser) -> None:
    blocked = full_page().replace("script-src 'sha256-", "script-src 'sha256-0")
    page = Page(chromium(blocked, "#class=NOTE_WEAK"), dumped=True)
    assert len(page.visible) == len(ANSWERS) - 1
    assert [of for tag, of in page.tags if of.get("id") == "filter" and "hidden" in of], "no control without effect"


@pytest.mark.parametrize(
    ("scheme", "ground", "mark"), [(1, "#fbfbf9", "#ffe69a"), (0, "#15171a", "#5a4300")], ids=["light", "dark"]
)
@pytest.mark.parametrize("width", [1000, 500])
def test_the_page_looks_like_something(
    chromium: Browser, tmp_path: Path, scheme: int, ground: str, mark: str, width: int
) -> None:
    import numpy as np
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    flags = (f"--screenshot={tmp_path / 'shot.png'}", f"--window-size={width},9000")
    chromium(full_page(), "#class=NOTE_WEAK", f"--blink-settings=preferredColorScheme={scheme}", *flags)
    pixels = imread(tmp_path / "shot.png")[:, :, :3]
    assert pixels.shape == (9000, width, 3)
    found = {colour: np.isclose(pixels, to_rgb(colour), atol=0.002).all(axis=2) for colour in (ground, mark)}
    assert found[ground][:, [0, -1]].all(), "nothing runs over the edges"
    assert 0.01 < 1 - found[ground].mean() < 0.6 and found[mark].sum() > 1000

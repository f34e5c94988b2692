"""A dataset's rows -> two PNGs for its card: rows by category and split, words by split.

The same rows and the same matplotlib give the same bytes.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.example import Example

# Of Okabe and Ito: colour-blind readers can tell them apart, and in grey too.
COLOURS = ("#0072B2", "#E69F00", "#009E73")
SHOWN = 15  # categories at most; the rest share a bar
NAME = 32  # letters of a category's name at most
BINS = 40
SHADES = 64  # three colours, black and the mixtures at their edges


def pictures(dataset: Mapping[str, Sequence[Example]], folder: Path) -> list[Path]:
    """Write categories_by_split.png and lengths.png, 800 pixels wide.  No display is needed."""
    paths = [folder / "categories_by_split.png", folder / "lengths.png"]
    from matplotlib import style

    # matplotlib's own settings, whatever this machine's matplotlibrc says; a $ in a name stays a $.
    with style.context(["default", {"text.parse_math": False}]):
        _draw_categories(dataset, paths[0])
        _draw_lengths(dataset, paths[1])
    return paths


def _draw_categories(dataset: Mapping[str, Sequence[Example]], path: Path) -> None:
    counts = {split: Counter(row.category for row in rows) for split, rows in dataset.items()}
    names = _shown(counts)
    figure, axes = _figure(1.4 + 0.24 * (len(dataset) + 0.5) * len(names))
    height = 0.8 / len(dataset)
    for number, (split, count) in enumerate(counts.items()):
        wide = [count[name] if name in names[:SHOWN] else 0 for name in names]
        if len(names) > SHOWN:
            wide[-1] = count.total() - sum(wide)
        places = [place + (number - (len(dataset) - 1) / 2) * height for place in range(len(names))]
        bars = axes.barh(places, wide, height, label=split, color=COLOURS[number % len(COLOURS)])
        axes.bar_label(bars, padding=2, fontsize=8)
    labels = [name if len(name) <= NAME else name[: NAME - 1] + "…" for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.02)
    axes.set(title="Rows by category and split", xlabel="rows", ylabel="category")
    _finish(figure, axes, "x", path)


def _shown(counts: Mapping[str, Counter[str]]) -> list[str]:
    """All categories by name; if there are more than SHOWN, the largest ones, then the others together."""
    whole = sum(counts.values(), Counter[str]())
    if len(whole) <= SHOWN:
        return sorted(whole)
    largest = sorted(whole, key=lambda name: (-whole[name], name))[:SHOWN]
    return [*largest, f"{len(whole) - SHOWN} others"]


def _draw_lengths(dataset: Mapping[str, Sequence[Example]], path: Path) -> None:
    words = {split: [len(row.response.split()) for row in rows] for split, rows in dataset.items()}
    low = min(min(numbers) for numbers in words.values() if numbers)
    high = max(max(numbers) for numbers in words.values() if numbers)
    step = -(-(high + 1 - low) // BINS)
    edges = [edge - 0.5 for edge in range(low, high + step + 1, step)]
    figure, axes = _figure(4)
    lines = ("-", "--", ":")
    for number, (split, numbers) in enumerate(words.items()):
        label = f"{split} ({len(numbers)} rows)"
        weights = [100 / len(numbers)] * len(numbers)  # shares, so that splits of different sizes can be compared
        axes.hist(numbers, edges, weights=weights, histtype="step", linewidth=2, label=label,
                  color=COLOURS[number % len(COLOURS)], linestyle=lines[number % len(lines)])  # fmt: skip
    axes.set(title="Words in a response, by split", xlabel="words", ylabel="share of the split's rows (%)")
    _finish(figure, axes, "y", path)


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: a bare Figure draws by Agg and leaves no state behind

    figure = Figure(figsize=(8, height), dpi=100, layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Any, axes: Any, grid: str, path: Path) -> None:
    from PIL import Image  # comes with matplotlib

    axes.grid(axis=grid, alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    # A palette makes a quarter of the size, and drops the text that names matplotlib's version.
    Image.open(drawn).convert("RGB").quantize(SHADES, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)

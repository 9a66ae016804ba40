"""One picture of a run: the learning curve on the left, the confusion matrix on the right."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Fonts with Chinese, Japanese and Korean letters on the usual systems; the first one that is installed is used.
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)
MAX_NUMBERED_CELLS = 15
MAX_LABEL_CHARACTERS = 14


def draw_run(
    path: Path,
    *,
    curve: Sequence[Mapping[str, float]],
    confusion: Sequence[Sequence[int]],
    labels: Sequence[str],
    title: str = "",
) -> None:
    """Draw the picture of a model card. The same numbers give the same bytes.

    Labels that no installed font can show are drawn as class numbers, never as empty boxes; the model card says which
    number is which label.

    Args:
        path: PNG file to write.
        curve: entries of ``trainer.state.log_history``; ``loss``, ``eval_loss`` and ``eval_accuracy`` over ``step``.
        confusion: C lists of C counts, true class first.
        labels: the C label names.
        title: over the confusion matrix.
    Example:
        >>> draw_run(Path("p.png"), curve=[], confusion=[[1, 0], [0, 1]], labels=["no", "yes"])  # doctest: +SKIP
    """
    fonts = usable_fonts([*labels, title])
    names = list(labels) if fonts else [str(number) for number in range(len(labels))]
    names = [name if len(name) <= MAX_LABEL_CHARACTERS else name[: MAX_LABEL_CHARACTERS - 1] + "…" for name in names]
    settings: dict[str, Any] = {
        "font.family": fonts or ["DejaVu Sans"],
        "text.parse_math": False,
        "axes.unicode_minus": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _draw_curve(left, curve)
        _draw_confusion(right, confusion, names, title if fonts else "")
        figure.savefig(path, format="png", metadata={"Software": None})


def usable_fonts(texts: Sequence[str]) -> list[str]:
    """Return the fonts that together show every character of the texts, or nothing if no installed ones can.

    Example:
        >>> usable_fonts(["positive"])
        ['DejaVu Sans']
    """
    characters = {ord(character) for text in texts for character in text}
    if any(not chr(code).isprintable() for code in characters):
        return []
    left_over = characters - _characters_of("DejaVu Sans")
    if not left_over:
        return ["DejaVu Sans"]
    installed = {font.name for font in font_manager.fontManager.ttflist}
    for name in CJK_FONTS:
        if name in installed and left_over <= _characters_of(name):
            return ["DejaVu Sans", name]
    return []


def _characters_of(font: str) -> set[int]:
    return set(font_manager.get_font(font_manager.findfont(font)).get_charmap())


def _draw_curve(axes: Any, curve: Sequence[Mapping[str, float]]) -> None:
    handles = []
    for key, name, colour in (("loss", "training loss", "#4c78a8"), ("eval_loss", "dev loss", "#f58518")):
        points = [(entry["step"], entry[key]) for entry in curve if key in entry and "step" in entry]
        if points:
            marker = "o" if len(points) <= 40 else ""
            handles += axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, label=name)
    points = [(entry["step"], entry["eval_accuracy"]) for entry in curve if "eval_accuracy" in entry]
    if points:
        second = axes.twinx()
        second.set_ylim(0, 1)
        second.set_ylabel("accuracy")
        handles += second.plot(
            *zip(*points, strict=True), color="#54a24b", linestyle="--", marker="s", markersize=3, label="dev accuracy"
        )
    axes.set_title("Learning curve")
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    if handles:
        axes.legend(handles=handles, loc="best", fontsize=8)


def _draw_confusion(axes: Any, confusion: Sequence[Sequence[int]], names: Sequence[str], title: str) -> None:
    num_classes = len(names)
    shares = [[count / max(sum(counts), 1) for count in counts] for counts in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(f"Confusion matrix{f' ({title})' if title else ''}")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    step = max(1, num_classes // 30)
    axes.set_xticks(range(0, num_classes, step), names[::step], rotation=45 if num_classes > 3 else 0)
    axes.set_yticks(range(0, num_classes, step), names[::step])
    if num_classes <= MAX_NUMBERED_CELLS:
        for true, counts in enumerate(confusion):
            for predicted, count in enumerate(counts):
                colour = "white" if shares[true][predicted] > 0.5 else "black"
                axes.text(predicted, true, str(count), ha="center", va="center", color=colour, fontsize=9)

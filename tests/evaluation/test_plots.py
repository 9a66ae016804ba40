"""The picture of a run: the same bytes for the same numbers, and never an empty box."""

from __future__ import annotations

from pathlib import Path

from matplotlib import font_manager

from hf_prompting.evaluation import draw_run
from hf_prompting.evaluation.plots import CJK_FONTS, usable_fonts

CURVE = [{"loss": 1.0, "step": 1}, {"loss": 0.5, "step": 2}, {"eval_loss": 0.7, "eval_accuracy": 0.8, "step": 2}]


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_run(tmp_path / name, curve=CURVE, confusion=[[3, 1], [0, 4]], labels=["no", "yes"], title="8 rows")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_labels_without_a_font_are_drawn_as_numbers(tmp_path: Path) -> None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    assert bool(usable_fonts(["正面"])) == bool(installed & set(CJK_FONTS))
    assert usable_fonts(["\U000131f0", "a"]) == []
    draw_run(tmp_path / "strange.png", curve=[], confusion=[[1, 0], [0, 1]], labels=["\U000131f0", "\x1b"])
    draw_run(tmp_path / "numbers.png", curve=[], confusion=[[1, 0], [0, 1]], labels=["0", "1"])
    assert (tmp_path / "strange.png").read_bytes() == (tmp_path / "numbers.png").read_bytes()


def test_markup_and_many_or_long_labels_do_not_break_the_picture(tmp_path: Path) -> None:
    labels = ["$x^", "_a_", *(f"label number {number} with a long name" for number in range(75))]
    confusion = [[int(i == j) for j in range(77)] for i in range(77)]
    draw_run(tmp_path / "a.png", curve=CURVE, confusion=confusion, labels=labels, title="$ 77 _rows_ {")
    assert (tmp_path / "a.png").stat().st_size > 5_000

"""Take the picture of the page that stands in the README, from the saved folder of the recipe.

hf-prompting run recipes/movie-reviews-soft-prompt
python tests/demo/take_picture.py outputs/movie-reviews-soft-prompt
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from browser import ROOT, classify, opened_browser, served_demo
from PIL import Image
from playwright.sync_api import Browser

RECIPE = ROOT / "recipes" / "movie-reviews-soft-prompt"
TEXT = "The plot is thin, but the cast makes it worth an evening."
MAX_BYTES = 200_000


def take_picture(browser: Browser, address: str, text: str) -> bytes:
    """Open the page, classify a text, and return a small PNG of the whole page."""
    page = browser.new_page(viewport={"width": 1040, "height": 600}, device_scale_factor=1.5, color_scheme="light")
    page.goto(address)
    classify(page, text)
    page.locator("#tokens").wait_for()
    page.locator("h1").click()  # the focus away from the button
    page.wait_for_function("document.querySelector('#label .bar').getAnimations().length === 0")
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    page.close()
    small = io.BytesIO()
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    examples = RECIPE / "data" / "test.jsonl"
    with served_demo(Path(sys.argv[1]), "--examples", examples) as served, opened_browser() as chromium:
        png = take_picture(chromium, served, TEXT)
    assert len(png) < MAX_BYTES, len(png)
    (RECIPE / "demo.png").write_bytes(png)

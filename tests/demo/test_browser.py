"""The page in a real headless browser: labels, tokens, files, errors, both languages, and nothing that breaks out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from saved_prompts import EVALUATED, HOSTILE, save_prompt
from tiny_recipes import write_rows

from hf_prompting.demo.answers import answer_texts
from hf_prompting.demo.pieces import soft_token_words
from hf_prompting.recipe.prediction import Classifier, load_classifier

pytest.importorskip("playwright", reason="the browser tests need the Python package playwright")
from browser import CHROMIUM, classify, opened_browser, score_file, served_demo
from playwright.sync_api import Browser, Locator, Page, expect
from take_picture import MAX_BYTES, RECIPE, take_picture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
TEXTS = ("great, moving story", "I hated it", "这部电影很好看")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Yield the address of the page, and the file that lists what its process wanted to reach."""
    folder = tmp_path_factory.mktemp("watch")
    examples = write_rows(folder / "examples.jsonl", [{"text": text} for text in TEXTS])
    with served_demo(saved, "--examples", examples, watch_file=folder / "reached.txt") as address:
        yield address, folder / "reached.txt"


def open_page(browser: Browser, address: str, locale: str = "en-US") -> Page:
    """Open the page; whatever it asks of another machine than its own fails the test."""
    page = browser.new_page(locale=locale)
    page.set_default_timeout(30_000)
    expect.set_options(timeout=30_000)
    page.on("request", lambda request: elsewhere.append(request.url) if is_elsewhere(request.url, address) else None)
    elsewhere: list[str] = []
    page.elsewhere = elsewhere  # type: ignore[attr-defined]
    page.goto(address)
    return page


def is_elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, address.replace("http:", "ws:"), "data:", "blob:"))


def rows_of(page: Page, text: str) -> Locator:
    return page.locator("#scores").get_by_role("row").filter(has_text=text)


def test_a_typed_review_gets_its_label_its_bars_and_its_tokens(
    browser: Browser, served: tuple[str, Path], classifier: Classifier
) -> None:
    page = open_page(browser, served[0])
    expect(page.locator("h1")).to_have_text("tiny reviews")
    expect(page.locator(".about pre")).to_have_text("{soft:3}Review: {text}\nThe movie was{mask}")
    for text in TEXTS:
        expected = answer_texts(classifier, {"text": text})
        classify(page, text)
        expect(page.locator("#tokens")).to_contain_text(expected.pieces[5].text.strip())
        expect(page.locator("#label h2")).to_have_text(max(expected.scores, key=lambda name: expected.scores[name]))
        bars = sorted(expected.scores.items(), key=lambda item: -item[1])
        expect(page.locator("#label dt")).to_have_text([name for name, _ in bars])
        expect(page.locator("#label dd")).to_have_text([f"{round(100 * score)}%" for _, score in bars])
    shown = [line.strip() for line in page.locator("#tokens").inner_text().splitlines()]
    assert shown[-len(expected.pieces) :] == [piece.text.strip() for piece in expected.pieces]
    page.close()


def test_an_example_is_filled_in_and_classified_by_a_click(browser: Browser, served: tuple[str, Path]) -> None:
    page = open_page(browser, served[0])
    page.get_by_text(TEXTS[2]).click()
    expect(page.locator("textarea").first).to_have_value(TEXTS[2])
    expect(page.locator("#label h2")).to_have_text(re.compile("positive|negative"))
    page.close()


def test_a_file_shows_its_scores_and_a_bad_one_its_error(
    browser: Browser, served: tuple[str, Path], classifier: Classifier, tmp_path: Path
) -> None:
    page = open_page(browser, served[0])
    score_file(page, write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS]))
    for text in TEXTS:
        scores = answer_texts(classifier, {"text": text}).scores
        row = rows_of(page, text)
        expect(row).to_contain_text(max(scores, key=lambda name: scores[name]))
        expect(row).to_contain_text(f"{max(scores.values()):.3f}")
    with page.expect_download() as download:
        page.get_by_text("Download all as JSONL").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"]["text"] for line in lines] == list(TEXTS)

    (tmp_path / "broken.jsonl").write_text('{"text": "good"}\n{"text": <b>\n', encoding="utf-8")
    score_file(page, tmp_path / "broken.jsonl")
    expect(page.locator("#file-problem")).to_contain_text("broken.jsonl, line 2")
    expect(page.locator("#scores")).to_be_hidden()
    assert "Traceback" not in page.content()
    score_file(page, write_rows(tmp_path / "other.jsonl", [{"review": "good"}]))
    expect(page.locator("#file-problem")).to_contain_text("no column 'text'; its columns are ['review']")
    page.locator("input[type=text]:visible, textarea:visible").last.fill("review")
    page.locator("button.primary:visible").click()
    expect(rows_of(page, "good")).to_contain_text("0.")
    expect(page.locator("#file-problem")).to_be_hidden()
    page.close()


def test_the_words_near_the_soft_tokens_are_shown(
    browser: Browser, served: tuple[str, Path], classifier: Classifier
) -> None:
    page = open_page(browser, served[0])
    page.get_by_role("tab").nth(2).click()
    rows = page.locator("#soft-tokens").get_by_role("row")
    expect(rows).to_have_count(1 + 3)  # the header, and three soft tokens
    for number, words in enumerate(soft_token_words(classifier)):
        for word, cosine in words:
            expect(rows.nth(number + 1)).to_contain_text(f"{word.strip()} · {cosine:.3f}")
    page.close()


def test_a_chinese_browser_sees_chinese_words(browser: Browser, served: tuple[str, Path]) -> None:
    page = open_page(browser, served[0], locale="zh-CN")
    expect(page.locator("button.primary:visible")).to_have_text("分类")
    assert [tab.strip() for tab in page.get_by_role("tab").all_inner_texts()] == ["单条文本", "多行文件", "软词元"]
    page.close()


def test_neither_the_page_nor_its_process_asks_another_machine_for_anything(
    browser: Browser, served: tuple[str, Path]
) -> None:
    page = open_page(browser, served[0])
    classify(page, TEXTS[0])
    expect(page.locator("#label h2")).to_have_text(re.compile("positive|negative"))
    page.wait_for_load_state("networkidle")
    assert page.elsewhere == []  # type: ignore[attr-defined]
    assert served[1].read_text() == ""
    page.close()


def test_nothing_hostile_breaks_out_of_the_page(browser: Browser, tmp_path: Path) -> None:
    words = {f"no {HOSTILE}": ["bad"], f"yes {EVALUATED}": ["good"]}
    template = f"{{soft:2}}{HOSTILE} {EVALUATED.replace('{', '{{').replace('}', '}}')} {{text}} was{{mask}}"
    saved = save_prompt(tmp_path, words=words, template=template, name=HOSTILE, about=HOSTILE + EVALUATED)
    labels = load_classifier(str(saved)).model.config.label2id
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": HOSTILE + EVALUATED}])
    with served_demo(saved, "--examples", rows) as address:
        page = open_page(browser, address)
        expect(page.locator("h1")).to_have_text(HOSTILE)
        expect(page.locator(".about pre")).to_contain_text(HOSTILE)
        assert page.locator(".chip").all_inner_texts()[1:] == list(labels)
        classify(page, HOSTILE + EVALUATED)
        expect(page.locator("#label h2")).to_have_text(re.compile("^(no|yes) "))
        expect(page.locator("#label dt")).to_have_count(2)
        assert set(page.locator("#label dt").all_inner_texts()) == set(labels)
        score_file(page, rows)
        expect(page.locator("#scores")).to_contain_text("onerror=")
        (tmp_path / "bad.jsonl").write_text(json.dumps({HOSTILE + EVALUATED: "x"}) + "\n", encoding="utf-8")
        score_file(page, tmp_path / "bad.jsonl")
        expect(page.locator("#file-problem")).to_contain_text("<script>")
        assert page.locator("img[src=x]").count() == 0
        assert page.title() != "broken"
        assert page.elsewhere == []  # type: ignore[attr-defined]
        page.close()


def test_the_picture_of_the_readme_can_be_taken_again_and_is_small(browser: Browser, served: tuple[str, Path]) -> None:
    png = take_picture(browser, served[0], TEXTS[0])
    assert png.startswith(b"\x89PNG")
    assert max(len(png), (RECIPE / "demo.png").stat().st_size) < MAX_BYTES

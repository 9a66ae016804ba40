"""The page over HTTP: it answers as ``predict`` does, listens on this machine alone, and names no other one."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from saved_prompts import EVALUATED, HOSTILE, save_prompt
from tiny_recipes import write_rows

from hf_prompting.demo.about import about_prompt, public_base_name
from hf_prompting.demo.answers import answer_texts
from hf_prompting.demo.look import head_html, problem_html
from hf_prompting.demo.page import build_page
from hf_prompting.demo.serve import launch
from hf_prompting.demo.words import CHINESE, ENGLISH
from hf_prompting.errors import DemoError
from hf_prompting.recipe.prediction import Classifier, load_classifier

TEXT = "great, moving story"


def page_of(folder: Path, classifier: Classifier, examples: Path | None = None) -> gr.Blocks:
    about = about_prompt(str(folder), classifier.model.config, classifier.template, examples)
    return build_page(classifier, about)


@pytest.fixture(scope="module")
def address(saved: Path, classifier: Classifier) -> Iterator[str]:
    page = page_of(saved, classifier)
    yield launch(page)
    page.close()


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False, analytics_enabled=False)


def read(url: str) -> str:
    with urllib.request.urlopen(url) as answer:
        return str(answer.read().decode("utf-8"))


def test_a_text_gets_the_scores_of_predict_and_its_tokens(client: Client, classifier: Classifier) -> None:
    label, _, tokens = client.predict(TEXT, api_name="/classify")
    expected = answer_texts(classifier, {"text": TEXT}).scores
    assert {row["label"]: row["confidence"] for row in label["confidences"]} == dict(expected)
    assert [kind for _, kind in values_of(tokens)[:4]] == ["soft", "soft", "soft", "template"]


def values_of(tokens: Any) -> list[tuple[str, str]]:
    shown = tokens["value"] if isinstance(tokens, dict) else tokens
    return [(piece["token"], piece["class_or_confidence"]) for piece in shown]


def test_a_file_gets_its_scores_and_a_bad_one_its_error(client: Client, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "rows.jsonl", [{"review": TEXT}, {"review": "I hated it"}])
    _, table, download = client.predict(handle_file(file), "review", api_name="/score")
    assert [row[0] for row in table["value"]["data"]] == [TEXT, "I hated it"]
    lines = [json.loads(line) for line in Path(download["value"]).read_text(encoding="utf-8").splitlines()]
    assert [line["label"] for line in lines] == [row[1] for row in table["value"]["data"]]
    problem, *_ = client.predict(handle_file(file), "text", api_name="/score")
    assert "rows.jsonl has no column &#x27;text&#x27;" in problem["value"]


def test_the_page_names_no_other_machine_and_keeps_no_record(address: str) -> None:
    config = json.loads(read(f"{address}config"))
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    css = read(f"{address}theme.css")
    assert not re.findall(r"@import|@font-face|https?://(?!www\.w3\.org)", css)
    assert "system-ui" in css


def test_it_listens_on_the_loopback_alone_and_a_taken_port_is_an_error(
    address: str, saved: Path, classifier: Classifier
) -> None:
    match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", address)
    assert match is not None
    port = int(match[1])
    with socket.create_connection(("127.0.0.1", port)):
        pass
    others = {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
    for other in others - {"127.0.0.1"}:
        with pytest.raises(OSError), socket.create_connection((other, port), timeout=2):
            pass
    with pytest.raises(DemoError, match=f"port {port} is taken.*--port"):
        launch(page_of(saved, classifier), port=port)


def test_hostile_labels_templates_and_names_are_escaped_in_all_html(tmp_path: Path) -> None:
    words = {HOSTILE: ["bad"], EVALUATED: ["good"]}
    template = f"{{soft:2}}{HOSTILE} {{text}} was{{mask}}"
    folder = save_prompt(tmp_path, words=words, template=template, name=HOSTILE, about=f"\u202e{EVALUATED}{HOSTILE}")
    loaded = load_classifier(str(folder))
    head = head_html(about_prompt(str(folder), loaded.model.config, loaded.template))
    assert set(re.findall(r"<[^>]*>", head)) == {
        '<div class="about">',
        "<h1>",
        "</h1>",
        "<p>",
        "</p>",
        '<span class="chip base">',
        '<span class="chip">',
        "</span>",
        "<pre>",
        "</pre>",
        "</div>",
    }
    assert "\\u202e" in head
    assert problem_html(HOSTILE).count("<") == 2


def test_the_head_names_neither_the_folder_of_the_base_nor_that_of_the_prompt(saved: Path) -> None:
    loaded = load_classifier(str(saved))
    about = about_prompt(str(saved), loaded.model.config, loaded.template)
    assert (about.title, about.description, about.base_model) == ("tiny reviews", "Tells good from bad.", "base")
    (saved.parent / "plain").mkdir()
    assert about_prompt(str(saved.parent / "plain"), loaded.model.config, loaded.template).title == "plain"
    assert public_base_name("google/gemma-3-270m") == "google/gemma-3-270m"
    assert public_base_name("gpt2") == "gpt2"


def test_a_template_of_two_fields_has_a_box_for_each_and_examples_of_both(tmp_path: Path) -> None:
    folder = save_prompt(tmp_path, template="{soft:2}{title}: {review} It was{mask}")
    file = write_rows(tmp_path / "rows.jsonl", [{"title": f"t{number}", "review": "好看"} for number in range(9)])
    loaded = load_classifier(str(folder))
    about = about_prompt(str(folder), loaded.model.config, loaded.template, file)
    assert about.examples == tuple((f"t{number}", "好看") for number in range(6))
    page = page_of(folder, loaded, file)
    boxes = [block.label for block in page.blocks.values() if isinstance(block, gr.Textbox)]
    assert boxes[:2] == ["title", "review"]


def test_both_languages_have_all_words() -> None:
    assert CHINESE.keys() == ENGLISH.keys()


def test_questions_that_come_at_once_are_answered_as_if_one_by_one(
    client: Client, classifier: Classifier, tmp_path: Path
) -> None:
    texts = [f"great story {'so ' * number}it was" for number in range(12)]
    expected = [dict(answer_texts(classifier, {"text": text}).scores) for text in texts]
    file = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in texts * 8])
    scored = client.submit(handle_file(file), "text", api_name="/score")
    asked = [client.submit(text, api_name="/classify") for text in texts]
    for job, scores in zip(asked, expected, strict=True):
        label, *_ = job.result(timeout=60)
        assert {row["label"]: row["confidence"] for row in label["confidences"]} == scores
    problem, table, _ = scored.result(timeout=60)
    assert not problem["value"]
    assert len(table["value"]["data"]) == len(texts) * 8

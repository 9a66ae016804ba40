"""The page itself, in Gradio: three tabs over the functions of ``answers.py`` and ``pieces.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr

from hf_prompting.data.rows import READERS
from hf_prompting.demo.about import About
from hf_prompting.demo.answers import answer_file, answer_texts, lines_of, table_of
from hf_prompting.demo.look import KIND_COLORS, head_html, problem_html
from hf_prompting.demo.pieces import soft_token_words
from hf_prompting.demo.words import WORDS
from hf_prompting.recipe.prediction import Classifier

NUM_WORDS = 3
TEXT_WIDTH = 60  # per cent of the table, for all fields together
RESULTS_FILE = "scores.jsonl"
I18N = gr.I18n(**WORDS)


def build_page(classifier: Classifier, about: About) -> gr.Blocks:
    """Lay out the page of a loaded prompt.

    Args:
        classifier: answers; one question at a time.
        about: what the head of the page says, and the examples.
    Returns:
        The page; ``serve.launch`` opens it with its look.
    Example:
        >>> build_page(classifier, about).title  # doctest: +SKIP
        'movie-reviews-soft-prompt'
    """
    turn = Lock()  # scoring swaps the head of the model for a moment, so two threads must not score at once
    # Looked at each hour: uploads and results older than a day are deleted.
    with gr.Blocks(title=about.title, analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.HTML(head_html(about), elem_id="about")
        with gr.Tab(I18N("hfp_one")):
            _one_text(classifier, about, turn)
        with gr.Tab(I18N("hfp_file")):
            _several_rows(classifier, about, turn)
        if about.num_soft_tokens:
            with gr.Tab(I18N("hfp_soft")):
                _soft_tokens(classifier)
    return page


def _one_text(classifier: Classifier, about: About, turn: Lock) -> None:
    fields = [field.name for field in classifier.template.fields]
    with gr.Row():
        with gr.Column(scale=3):
            boxes = [
                gr.Textbox(label=name, lines=3, max_lines=12, placeholder=I18N("hfp_placeholder")) for name in fields
            ]
            button = gr.Button(I18N("hfp_classify"), variant="primary")
        with gr.Column(scale=2):
            label = gr.Label(label=I18N("hfp_label"), elem_id="label")
    problem = gr.HTML(elem_id="problem", visible=False)
    tokens = gr.HighlightedText(
        label=I18N("hfp_prompt"),
        color_map=KIND_COLORS,
        show_legend=True,
        show_inline_category=False,
        elem_id="tokens",
        visible=False,
    )

    def classify(*values: str | None) -> list[Any]:
        row = {name: value or "" for name, value in zip(fields, values, strict=True)}
        with turn:
            answer = answer_texts(classifier, row)
        pieces = [(piece.text, piece.kind) for piece in answer.pieces]
        return [
            dict(answer.scores) or None,
            gr.update(value=problem_html(answer.problem), visible=bool(answer.problem)),
            gr.update(value=pieces, visible=not answer.problem),
        ]

    results = [label, problem, tokens]
    gr.on([button.click, *(box.submit for box in boxes)], classify, boxes, results, api_name="classify")
    if about.examples:
        gr.Examples(
            [list(row) for row in about.examples],
            boxes,
            results,
            classify,
            run_on_click=True,
            label=I18N("hfp_examples"),
            api_visibility="private",
        )


def _several_rows(classifier: Classifier, about: About, turn: Lock) -> None:
    fields = [field.name for field in classifier.template.fields]
    with gr.Row():
        upload = gr.File(label=I18N("hfp_upload"), file_types=list(READERS), height=130, scale=3, elem_id="upload")
        with gr.Column(scale=2):
            columns = [gr.Textbox(label=I18N("hfp_column") + f" {{{name}}}", value=name) for name in fields]
            button = gr.Button(I18N("hfp_score"), variant="primary")
    problem = gr.HTML(elem_id="file-problem", visible=False)
    table = gr.Dataframe(
        label=I18N("hfp_scores"),
        headers=[*fields, "label", "scores"],
        column_widths=[*(f"{TEXT_WIDTH // len(fields)}%" for _ in fields), "14%", "26%"],
        interactive=False,
        wrap=True,
        elem_id="scores",
        visible=False,
    )
    download = gr.DownloadButton(I18N("hfp_download"), visible=False)
    results_folder = tempfile.TemporaryDirectory(prefix="hf_prompting_demo_")  # deleted with the page

    def score(file: str | None, *names: str, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        if file is None:
            return [gr.update(value=problem_html("choose a file first"), visible=True), gr.update(), gr.update()]
        with turn:
            answer = answer_file(classifier, Path(file), names, lambda done, total: progress((done, total)))
        results = Path(tempfile.mkdtemp(dir=results_folder.name)) / RESULTS_FILE
        results.write_text(lines_of(answer), encoding="utf-8")
        some = bool(answer.rows)
        return [
            gr.update(value=problem_html(answer.problem), visible=bool(answer.problem)),
            gr.update(value=table_of(answer), visible=some),
            gr.update(value=str(results), visible=some),
        ]

    gr.on(button.click, score, [upload, *columns], [problem, table, download], api_name="score")


def _soft_tokens(classifier: Classifier) -> None:
    rows = [
        [str(number), *(f"{word} · {cosine:.3f}" for word, cosine in words)]
        for number, words in enumerate(soft_token_words(classifier, num_words=NUM_WORDS))
    ]
    gr.Dataframe(
        rows,
        label=I18N("hfp_nearest"),
        headers=["soft", *(str(number) for number in range(1, NUM_WORDS + 1))],
        column_widths=["10%", *["30%"] * NUM_WORDS],
        interactive=False,
        max_height=620,
        elem_id="soft-tokens",
    )

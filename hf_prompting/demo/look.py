"""How the page looks: fonts of the reader's own system, one accent colour, one colour for each kind of token."""

from __future__ import annotations

import html

import gradio as gr

from hf_prompting.artifacts.escaping import visible
from hf_prompting.demo.about import About

# Names only: nothing is fetched from a font server. Chinese fonts of each system stand behind the Latin ones.
FONT = ("system-ui", "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
MONO = (
    "ui-monospace",
    "SF Mono",
    "Consolas",
    "DejaVu Sans Mono",
    "Liberation Mono",
    "Noto Sans Mono CJK SC",
    "monospace",
)
THEME = gr.themes.Base(
    primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="md", font=FONT, font_mono=MONO
)
KIND_COLORS: dict[str, str] = {
    "special": "#a855f7",
    "template": "#0ea5e9",
    "soft": "#f59e0b",
    "field": "#10b981",
    "slot": "#ef4444",
}
CSS = """
.gradio-container { width: 100% !important; max-width: 1000px !important; margin: 0 auto !important; }
#about .html-container, #problem .html-container, #file-problem .html-container { padding-left: 0; padding-right: 0; }
#label, #scores, #soft-tokens { --font-mono: var(--font); }
.about h1 { margin: 0; font-size: 1.7rem; font-weight: 650; letter-spacing: -0.02em; overflow-wrap: anywhere; }
.about p { margin: .35rem 0 .7rem; opacity: .75; max-width: 46rem; }
.about pre { margin: .7rem 0 0; padding: .7rem .9rem; border-radius: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary);
  font-family: var(--font-mono); font-size: .9rem; line-height: 1.5; }
.chip { display: inline-block; margin: 0 .35rem .25rem 0; padding: .1rem .6rem; border-radius: 999px;
  font-size: .85rem; overflow-wrap: anywhere; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.chip.base { background: var(--primary-50); border-color: var(--primary-200); color: var(--primary-800); }
.problem { padding: .7rem .9rem; border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere;
  background: #fef2f2; border: 1px solid #fecaca; color: #991b1b; }
.dark #tokens * { color: #f8fafc !important; }
.dark .chip.base { background: transparent; color: var(--primary-300); }
"""


def head_html(about: About) -> str:
    """Return the head of the page; every string of the prompt is escaped.

    Example:
        >>> "<b>" in head_html(About("<b>", "", "base", "{text}{mask}", ("a", "b"), 0))
        False
    """
    chips = [_chip(about.base_model, "chip base"), *(_chip(label, "chip") for label in about.labels)]
    description = f"<p>{_escaped(about.description)}</p>" if about.description else ""
    lines = "\n".join(_escaped(line) for line in about.template.split("\n"))
    title = f"<h1>{_escaped(about.title)}</h1>"
    return f'<div class="about">{title}{description}{"".join(chips)}<pre>{lines}</pre></div>'


def problem_html(problem: str) -> str:
    """Return the words of an error as they are, whatever markup they hold.

    Example:
        >>> problem_html("no column '<i>'")
        '<div class="problem" role="alert">no column &#x27;&lt;i&gt;&#x27;</div>'
    """
    return f'<div class="problem" role="alert">{html.escape(problem)}</div>' if problem else ""


def _chip(text: str, style: str) -> str:
    return f'<span class="{style}">{_escaped(text)}</span>'


def _escaped(text: str) -> str:
    return html.escape(visible(text))

"""Open the page on this machine, or on a Space."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

# Before Gradio is imported: it sends nothing and asks nobody for its newest version.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from hf_prompting.demo.about import about_prompt
from hf_prompting.demo.look import CSS, THEME
from hf_prompting.demo.page import I18N, build_page
from hf_prompting.errors import DemoError
from hf_prompting.recipe.prediction import load_classifier

LOCALHOST = "127.0.0.1"
MAX_UPLOAD = "50mb"


def serve(
    folder: str,
    *,
    base_model: str | None = None,
    examples: Path | None = None,
    host: str | None = LOCALHOST,
    port: int | None = None,
) -> None:
    """Load a saved prompt and show its page until the process is stopped.

    Args:
        folder: what ``hf-prompting run`` or ``save_pretrained`` wrote, or a Hub id.
        base_model: id or folder of the base to use instead of the recorded one.
        examples: a file of rows with the template's columns; the first ones can be clicked.
        host: address to listen on; None for what the environment says (a Space sets ``GRADIO_SERVER_NAME``).
        port: None for the first free one from 7860 on.
    Raises:
        HfPromptingError: the prompt or its base cannot be loaded, or the port is taken.
    Example:
        >>> serve("outputs/movie-reviews-soft-prompt")  # doctest: +SKIP
    """
    classifier = load_classifier(folder, base_model=base_model)
    about = about_prompt(folder, classifier.model.config, classifier.template, examples)
    with tempfile.TemporaryDirectory(prefix="hf_prompting_demo_") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # for this user's eyes only, and gone at the end
        page = build_page(classifier, about)
        print(f"Open {launch(page, host=host, port=port)} in a browser; Ctrl-C ends it", flush=True)
        page.block_thread()


def launch(page: gr.Blocks, *, host: str | None = LOCALHOST, port: int | None = None) -> str:
    """Open a page with its look: no share link, no recording of what is typed, nothing from other machines.

    Args:
        page: from ``build_page``.
        host: as for ``serve``.
        port: as for ``serve``.
    Returns:
        The page's address; it is served in the background.
    Raises:
        DemoError: the port is taken, or cannot be opened.
    Example:
        >>> launch(page)  # doctest: +SKIP
        'http://127.0.0.1:7860/'
    """
    options: dict[str, Any] = {
        "server_name": host,
        "server_port": port,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "run_history": False,
        "footer_links": [],
        "quiet": True,
        "max_file_size": MAX_UPLOAD,
        "theme": THEME,
        "css": CSS,
        "i18n": I18N,
    }
    try:
        _, address, _ = page.launch(**options, prevent_thread_lock=True)
    except OSError as error:
        place = "every port from 7860 to 7959" if port is None else f"port {port}"
        raise DemoError(f"the page cannot be opened: {place} is taken or forbidden; choose another --port") from error
    return str(address)

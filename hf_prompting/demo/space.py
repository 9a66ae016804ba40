"""The same page as a Space of the Hub: a folder that Spaces runs as it is."""

from __future__ import annotations

import fnmatch
import json
import shutil
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from hf_prompting.artifacts import atomic_folder
from hf_prompting.artifacts.escaping import inline, visible
from hf_prompting.artifacts.folder import OWN_FILES
from hf_prompting.classifier import PromptClassifierConfig
from hf_prompting.demo.about import MAX_EXAMPLES, About, about_prompt, public_base_name
from hf_prompting.errors import ArtifactError, DemoError
from hf_prompting.recipe.prediction import load_tokenizer, rows_of_file

PROMPT_FOLDER = "prompt"
EXAMPLES_FILE = "examples.jsonl"
LEFT_OUT = "training_args.bin"  # a pickle; nothing of ours reads one
PACKAGE = Path(__file__).parents[1]

APP = '''"""A page to try a tuned prompt; written by hf_prompting, run by Spaces."""

from pathlib import Path

from hf_prompting.demo.serve import serve

HERE = Path(__file__).parent

if __name__ == "__main__":
    serve({folder}, base_model={base_model}, examples={examples}, host=None)
'''


def write_space(folder: str, target: Path, *, base_model: str | None = None, examples: Path | None = None) -> None:
    """Write ``app.py``, ``requirements.txt`` and ``README.md`` of a Space that shows a prompt's page.

    A local folder is copied into the Space; of a Hub id the Space knows the id alone. The Space carries a copy of this
    package as well (its Python files, below a megabyte), so that it runs what was tried here, and
    ``requirements.txt`` names what the package needs.

    Args:
        folder: a saved prompt, or its Hub id.
        target: where to write; a new or empty folder.
        base_model: Hub id of the base to use instead of the recorded one.
        examples: a file of rows with the template's columns; the first ones go into the Space, to be clicked.
    Raises:
        ArtifactError: ``folder`` is no saved prompt, ``target`` is not empty, or the base is a folder of this machine,
            which a Space cannot load.
        DataError: the file of examples cannot be read or lacks a column.
        DemoError: Gradio or this package is not installed, so that their versions are unknown.
    Example:
        >>> write_space("ann/movie-reviews", Path("my-space"))  # doctest: +SKIP
    """
    template = load_tokenizer(folder).prompt_template
    config = PromptClassifierConfig.from_pretrained(folder)
    base = base_model or config.base_model_name_or_path or ""
    if (config.base_model_is_folder and base_model is None) or public_base_name(base) != base:
        raise ArtifactError(f"the base model {base!r} is a folder of this machine; name its Hub id with --base-model")
    if target.is_dir() and any(target.iterdir()):
        raise ArtifactError(f"{target} is not empty; choose another folder for the Space")
    about = about_prompt(folder, config, template, examples)
    requirements = "".join(f"{line}\n" for line in _requirements())
    is_local = Path(folder).is_dir()
    with atomic_folder(target) as space:
        shutil.copytree(PACKAGE, space / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        if is_local:
            _copy_prompt(Path(folder), space / PROMPT_FOLDER)
        if examples is not None:
            rows = islice(rows_of_file(template, examples, []), MAX_EXAMPLES)
            lines = "".join(json.dumps(row.values, ensure_ascii=False) + "\n" for row in rows)
            (space / EXAMPLES_FILE).write_text(lines, encoding="utf-8")
        app = APP.format(
            folder=f"str(HERE / {PROMPT_FOLDER!r})" if is_local else repr(folder),
            base_model=repr(base_model),
            examples="None" if examples is None else f"HERE / {EXAMPLES_FILE!r}",
        )
        (space / "app.py").write_text(app, encoding="utf-8")
        (space / "requirements.txt").write_text(requirements, encoding="utf-8")
        (space / "README.md").write_text(_readme(about, [] if is_local else [folder]), encoding="utf-8")


def _copy_prompt(source: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name != LEFT_OUT and any(fnmatch.fnmatch(file.name, own) for own in OWN_FILES):
            shutil.copyfile(file, target / file.name)


def _requirements() -> list[str]:
    """What this package needs without its extras; Spaces installs Gradio itself, by ``sdk_version``."""
    try:
        lines = metadata.requires("hf_prompting") or []
    except metadata.PackageNotFoundError as error:
        raise DemoError("hf_prompting is not installed, so its requirements are unknown: pip install -e .") from error
    return [line for line in lines if "extra ==" not in line]


def _gradio_version() -> str:
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError as error:
        raise DemoError('a Space needs the version of gradio: pip install "hf_prompting[demo]"') from error


def _readme(about: About, prompt_ids: list[str]) -> str:
    header: dict[str, Any] = {
        "title": visible(about.title),
        "emoji": "💬",
        "colorFrom": "green",
        "colorTo": "blue",
        "sdk": "gradio",
        "sdk_version": _gradio_version(),
        "app_file": "app.py",
        "models": [name for name in [*prompt_ids, about.base_model] if name],
        "tags": ["hf_prompting", "soft-prompt"],
    }
    front = yaml.safe_dump(header, allow_unicode=True, sort_keys=False)
    description = f"{inline(about.description)}\n\n" if about.description else ""
    text = f"A page to try a prompt for **{inline(about.base_model)}**, tuned with hf\\_prompting."
    return f"---\n{front}---\n\n# {inline(about.title)}\n\n{description}{text}\n"

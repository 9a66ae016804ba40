"""The README.md of a pretrained encoder-decoder: what it learned from, how well, and how to go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_prompting.artifacts.escaping import fenced, inline
from hf_prompting.artifacts.model_card import recipe_yaml


@dataclass(frozen=True, kw_only=True)
class PretrainingCard:
    """Everything that the card says.

    Attributes:
        name: of the model.
        description: a paragraph, or empty.
        objective: its name.
        num_parameters: of the model.
        num_tokens: of the training texts.
        perplexities: state of the model -> perplexity of the dev texts.
        dataset: what to call the texts.
        credit: where they come from and under which licence.
        language: language codes.
        license: licence code of the folder, if given.
        picture: file name of the picture.
        recipe: the effective recipe as plain values, without private paths.
        versions: package -> version.
    """

    name: str
    description: str
    objective: str
    num_parameters: int
    num_tokens: int
    perplexities: Mapping[str, float]
    dataset: str
    credit: str
    language: Sequence[str]
    license: str | None
    picture: str
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]


def write_pretraining_card(folder: Path, contents: PretrainingCard) -> None:
    """Write ``README.md`` into a folder; every foreign string is escaped.

    Example:
        >>> write_pretraining_card(Path("outputs/model"), contents)  # doctest: +SKIP
    """
    header: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["hf_prompting", "text2text-generation", "pretraining"],
        **({"language": list(contents.language)} if contents.language else {}),
        **({"license": contents.license} if contents.license else {}),
    }
    rows = [f"| {inline(name)} | {value:.2f} |" for name, value in contents.perplexities.items()]
    sections = [
        f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---",
        f"# {inline(contents.name)}",
        inline(contents.description),
        f"An encoder-decoder of {contents.num_parameters:,} values, pretrained with hf\\_prompting from random weights "
        f"on {contents.num_tokens:,} tokens ({inline(contents.objective)}). It fills gaps; fine-tune it before use.",
        "\n".join(["| | perplexity of the dev texts |", "|---|---|", *rows]),
        f"![Loss]({contents.picture})",
        "```python\nimport hf_prompting\nfrom transformers import AutoModelForSeq2SeqLM\n\n"
        'model = AutoModelForSeq2SeqLM.from_pretrained("this-folder")\n```',
        f"Texts: {inline(contents.dataset)}. {inline(contents.credit)}".strip(),
        fenced(recipe_yaml(contents.recipe), "yaml"),
        ", ".join(f"{inline(name)} {inline(version)}" for name, version in contents.versions.items()),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    (folder / "README.md").write_text(text, encoding="utf-8")

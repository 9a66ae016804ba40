"""The README.md of a folder that generates texts: what was trained, on what, how good it is, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hf_prompting.artifacts.escaping import fenced, inline
from hf_prompting.artifacts.model_card import recipe_yaml

MAX_SAMPLE_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class GenerationCard:
    """Everything that the card says.

    Attributes:
        name: of the model.
        description: a paragraph, or empty.
        base_model: what it started from; ``None`` for random weights.
        num_soft_tokens: at the source, and before the target.
        soft_tokens_at: ``before`` or ``behind`` the source.
        num_parameters: of the model.
        num_trained: of these, how many were trained.
        results: model of the run -> metric -> value.
        spread: metric -> (mean, standard deviation) over the seeds, if there were several.
        saved: which of the results is this folder's.
        num_test_rows: how many rows were generated.
        samples: source, reference and generated text of the first test rows.
        dataset: what to call the data.
        dataset_id: its ``datasets`` id, where it is one.
        credit: where the data comes from and under which licence.
        language: language codes.
        license: licence code of the folder, if given.
        picture: file name of the picture.
        recipe: the effective recipe as plain values, without private paths.
        versions: package -> version.
    """

    name: str
    description: str = ""
    base_model: str | None = None
    num_soft_tokens: tuple[int, int] = (0, 0)
    soft_tokens_at: str = "before"
    num_parameters: int
    num_trained: int
    results: Mapping[str, Mapping[str, float]]
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    saved: str
    num_test_rows: int
    samples: Sequence[Mapping[str, str]] = ()
    dataset: str
    dataset_id: str | None = None
    credit: str = ""
    language: Sequence[str] = ()
    license: str | None = None
    picture: str
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]


def generation_card(contents: GenerationCard) -> str:
    """Write the card as Markdown with a YAML header that the Hub understands; every foreign string is escaped.

    Example:
        >>> generation_card(contents).splitlines()[0]  # doctest: +SKIP
        '---'
    """
    sections = [
        _header(contents),
        f"# {inline(contents.name)}",
        inline(contents.description),
        _what_it_is(contents),
        "## Results",
        _results(contents),
        f"![Learning curves]({contents.picture})",
        "## Use",
        _use(contents),
        "## Samples" if contents.samples else "",
        _samples(contents),
        "## Data",
        f"Trained and tested on {inline(contents.dataset)}. {inline(contents.credit)}".strip(),
        "## Recipe and versions",
        fenced(recipe_yaml(contents.recipe), "yaml"),
        ", ".join(f"{inline(name)} {inline(version)}" for name, version in contents.versions.items()),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def write_generation_card(folder: Path, contents: GenerationCard) -> None:
    """Write ``README.md`` into a folder."""
    (folder / "README.md").write_text(generation_card(contents), encoding="utf-8")


def _header(contents: GenerationCard) -> str:
    scores = contents.results[contents.saved]
    header: dict[str, Any] = {
        "library_name": "transformers",
        "tags": ["hf_prompting", "text2text-generation", *(["soft-prompt"] if any(contents.num_soft_tokens) else [])],
        **({"language": list(contents.language)} if contents.language else {}),
        **({"license": contents.license} if contents.license else {}),
        **({"datasets": [contents.dataset_id]} if contents.dataset_id else {}),
        "metrics": list(scores),
        "model-index": [
            {
                "name": contents.name,
                "results": [
                    {
                        "task": {"type": "text2text-generation"},
                        "dataset": {"name": contents.dataset, "type": contents.dataset_id or contents.dataset},
                        "metrics": [{"type": name, "value": round(value, 2)} for name, value in scores.items()],
                    }
                ],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(header, allow_unicode=True, sort_keys=False)}---"


def _what_it_is(contents: GenerationCard) -> str:
    start = "random weights" if contents.base_model is None else f"**{inline(contents.base_model)}**"
    trained = f"{contents.num_trained:,} of its {contents.num_parameters:,} values were trained"
    at_source, before_target = contents.num_soft_tokens
    soft = (
        f": {at_source} soft tokens {contents.soft_tokens_at} the source and {before_target} before the target"
        if any(contents.num_soft_tokens)
        else ""
    )
    return f"An encoder-decoder, trained with hf\\_prompting from {start}; {trained}{soft}."


def _results(contents: GenerationCard) -> str:
    names = list(contents.results[contents.saved])
    rows = [
        f"| {inline(row)}{' (this folder)' if row == contents.saved else ''} | "
        f"{' | '.join(f'{values[name]:.2f}' for name in names)} |"
        for row, values in contents.results.items()
    ]
    if contents.spread:
        cells = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in (contents.spread[name] for name in names)]
        rows.append(f"| mean ± standard deviation over the seeds | {' | '.join(cells)} |")
    head = [f"| | {' | '.join(map(inline, names))} |", f"|---|{'---|' * len(names)}"]
    return "\n".join([f"On {contents.num_test_rows:,} test rows, all of them generated:", "", *head, *rows])


def _use(contents: GenerationCard) -> str:
    code = (
        "import hf_prompting  # without it, pass trust_remote_code=True to both below\n"
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
        'folder = "PATH_OR_ID_OF_THIS_FOLDER"\n'
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "model = AutoModelForSeq2SeqLM.from_pretrained(folder)\n"
        'ids = model.generate(**tokenizer("…", return_tensors="pt"))\n'
        "print(tokenizer.decode(ids[0], skip_special_tokens=True))"
    )
    command = 'hf-prompting predict PATH_OF_THIS_FOLDER --text "…"'
    if contents.num_soft_tokens[1]:  # plain generate knows nothing of soft tokens in the decoder
        return fenced(command, "bash")
    return f"{fenced(code, 'python')}\n\n{fenced(command, 'bash')}"


def _samples(contents: GenerationCard) -> str:
    if not contents.samples:
        return ""
    columns = ("source", "reference", "text")
    rows = [
        f"| {' | '.join(inline(sample[column][:MAX_SAMPLE_CHARACTERS]) for column in columns)} |"
        for sample in contents.samples
    ]
    head = ["The first test rows, not chosen:", "", "| source | reference | generated |", "|---|---|---|"]
    return "\n".join([*head, *rows])

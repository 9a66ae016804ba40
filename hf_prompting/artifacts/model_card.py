"""The README.md of a saved folder: what was tuned, on what, how good it is, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from hf_prompting.artifacts.escaping import fenced, inline, visible
from hf_prompting.classifier.modeling_prompt import TAGS

# Stands where a reader has to write the folder or its id; `push` puts the repository's id there.
OWN_PLACE = "PATH_OR_ID_OF_THIS_FOLDER"
TASK = "text-classification"


@dataclass(frozen=True, kw_only=True)
class CardContents:
    """Everything that a model card says.

    Attributes:
        name: of the model.
        description: a paragraph, or empty.
        base_model: Hub id of the base, or the name of its folder.
        base_is_folder: whether it is a folder of the machine that tuned; the header then names no base.
        base_is_trained: whether it was tuned as well; then it is in the folder.
        base_revision: its commit, where known.
        template: the template's source.
        fields: the columns that it names.
        label_words: label -> its words, in class order.
        num_trained: number of trained values, where known.
        results: rows of the result table: name of the row -> metric -> value; empty where nothing was measured.
        spread: metric -> (mean, standard deviation) over the seeds, if there were several.
        tuned: metrics of the saved model on the test rows.
        num_test_rows: how many.
        dataset: what to call the data; empty where it is unknown.
        dataset_id: its `datasets` id, where it is one.
        credit: where the data comes from and under which licence.
        language: language codes.
        license: licence code of the saved folder, if given.
        picture: file name of the picture, or ``None``.
        recipe: the effective recipe as plain values, without private paths; empty where there was none.
        versions: package -> version.
    """

    name: str
    description: str = ""
    base_model: str
    base_is_folder: bool = False
    base_is_trained: bool = False
    base_revision: str | None = None
    template: str
    fields: Sequence[str]
    label_words: Mapping[str, Sequence[str]]
    num_trained: int | None
    results: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tuned: Mapping[str, float] = field(default_factory=dict)
    num_test_rows: int = 0
    dataset: str = ""
    dataset_id: str | None = None
    credit: str = ""
    language: Sequence[str] = ()
    license: str | None = None
    picture: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str]


def model_card(contents: CardContents) -> str:
    """Write the card as Markdown with a YAML header that the Hub understands.

    Every foreign string is escaped: the header by ``yaml.safe_dump``, the body for Markdown and HTML.

    Example:
        >>> model_card(contents).splitlines()[0]  # doctest: +SKIP
        '---'
    """
    sections = [
        _header(contents),
        f"# {inline(contents.name)}",
        inline(contents.description),
        _what_it_is(contents),
        _results(contents) if contents.results else "",
        f"![Learning curve and confusion matrix]({contents.picture})" if contents.picture else "",
        "## Use",
        _use(contents),
        "## Prompt",
        fenced(contents.template),
        _label_table(contents),
        _data(contents) if contents.dataset else "",
        "## How it was made",
        fenced(recipe_yaml(contents.recipe), "yaml") if contents.recipe else "",
        ", ".join(f"{inline(name)} {inline(version)}" for name, version in contents.versions.items()),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def write_card(folder: Path, contents: CardContents) -> None:
    """Write ``README.md`` into a folder."""
    (folder / "README.md").write_text(model_card(contents), encoding="utf-8")


class _TextDumper(yaml.SafeDumper):
    """Writes a text with line breaks or invisible characters on one line in double quotes."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if visible(text) == text else '"')


_TextDumper.add_representer(str, _text_node)


def recipe_yaml(values: Mapping[str, Any]) -> str:
    """Write YAML in which no character moves a cursor or turns the reading order."""
    text: str = yaml.dump(dict(values), Dumper=_TextDumper, allow_unicode=True, sort_keys=False, width=110)
    # PyYAML leaves some of them as they are; all stand between double quotes, where YAML reads the same escapes.
    return "\n".join(_escaped(line) for line in text.rstrip().split("\n"))


def _escaped(line: str) -> str:
    return "".join(one if visible(one) == one else f"\\U{ord(one):08x}" for one in line)


def _header(contents: CardContents) -> str:
    dataset = contents.dataset_id or contents.dataset
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=dataset,
            dataset_name=contents.dataset,
            metric_type=name,
            metric_value=round(float(value), 4),
        )
        for name, value in contents.tuned.items()
    ]
    header = ModelCardData(
        library_name="hf_prompting",
        pipeline_tag=TASK,
        base_model=None if contents.base_is_folder else contents.base_model,
        tags=list(TAGS),
        language=list(contents.language) or None,
        license=contents.license,
        datasets=[contents.dataset_id] if contents.dataset_id else None,
        metrics=list(contents.tuned) or None,
        model_name=contents.name if results else None,
        eval_results=results or None,
    )
    values: dict[str, Any] = header.to_dict()  # type: ignore[no-untyped-call]
    return f"---\n{recipe_yaml(values)}\n---"


def _what_it_is(contents: CardContents) -> str:
    revision = f" (revision {inline(contents.base_revision)})" if contents.base_revision else ""
    base = "tuned too, and in this folder" if contents.base_is_trained else "unchanged and not in this folder"
    trained = "" if contents.num_trained is None else f"; {contents.num_trained:,} values were trained"
    return (
        f"A prompt for **{inline(contents.base_model)}**{revision}, tuned with hf\\_prompting. The base model is "
        f"{base}{trained}."
    )


def _results(contents: CardContents) -> str:
    names = list(contents.tuned)
    rows = [
        f"| {inline(row)} | {' | '.join(_number(values.get(name)) for name in names)} |"
        for row, values in contents.results.items()
    ]
    if contents.spread:
        cells = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in (contents.spread[name] for name in names)]
        rows.append(f"| mean ± standard deviation | {' | '.join(cells)} |")
    head = [f"| | {' | '.join(inline(name) for name in names)} |", f"|---|{'---|' * len(names)}"]
    return "\n".join(["## Results", "", f"On {contents.num_test_rows:,} test rows:", "", *head, *rows])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _use(contents: CardContents) -> str:
    single = 'print(classify("…"))'
    pair = 'print(classify({"text": "…", "text_pair": "…"}))'
    code = (
        "import hf_prompting  # registers the classifier with transformers\n"
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model="{OWN_PLACE}", truncation=True)\n'
        f"{single if len(contents.fields) == 1 else pair}"
    )
    command = f"hf-prompting predict {OWN_PLACE} --file rows.jsonl"
    by_command = f"Rows of a file with the {_columns(contents.fields)}:\n\n{fenced(command, 'bash')}"
    return f"{fenced(code, 'python')}\n\n{by_command}" if len(contents.fields) <= 2 else by_command


def _columns(fields: Sequence[str]) -> str:
    names = ", ".join(f"“{inline(name)}”" for name in fields)
    return f"column {names}" if len(fields) == 1 else f"columns {names}"


def _label_table(contents: CardContents) -> str:
    rows = [
        f"| {number} | {inline(label)} | {', '.join(inline(word) for word in words)} |"
        for number, (label, words) in enumerate(contents.label_words.items())
    ]
    return "\n".join(["| number | label | label words |", "|---|---|---|", *rows])


def _data(contents: CardContents) -> str:
    credit = f" {inline(contents.credit)}" if contents.credit else ""
    return f"## Data\n\nTuned and tested on {inline(contents.dataset)}.{credit}"

"""What of a saved folder may be published: it has to be whole, and free of private paths and tokens."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from hf_prompting.artifacts.folder import OWN_FILES
from hf_prompting.checksums import verify_pretrained
from hf_prompting.classifier import PromptClassifierConfig
from hf_prompting.errors import ArtifactError, HfPromptingError

# A pickle that names the folders of the machine, and maybe a token.
NEVER_PUBLISHED = ("training_args.bin",)
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")
_PATH = re.compile(r"(?:/[^\s/\"'`<>|:*?()\[\]{},;]+){2,}|[A-Za-z]:\\[^\s\"'<>|*?]+")


def publishable_files(folder: Path) -> list[Path]:
    """Return the files of a saved folder that are pushed; checkpoints, hidden and foreign files stay.

    Example:
        >>> [file.name for file in publishable_files(Path("out"))]  # doctest: +SKIP
        ['README.md', 'config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json']
    """
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and file.name not in NEVER_PUBLISHED
        and any(fnmatch.fnmatch(file.name, pattern) for pattern in (*OWN_FILES, *ADAPTER_FILES))
    )


def check_whole(folder: Path) -> None:
    """Make sure that a folder holds a whole classifier, or a whole PEFT adapter, before any of it is sent.

    Raises:
        ArtifactError: a file is missing, damaged, or of another classifier than the rest; the message names it.
    Example:
        >>> check_whole(Path("outputs/movie-reviews-soft-prompt"))  # doctest: +SKIP
    """
    if not folder.is_dir():
        raise ArtifactError(f"no such folder: {folder}; give a folder that `hf-prompting run` or save_pretrained wrote")
    if (folder / ADAPTER_FILES[0]).is_file():
        _values(folder / ADAPTER_FILES[0])
        _tensor_shapes(folder / ADAPTER_FILES[1])
        return
    config = _classifier_config(folder)
    verify_pretrained(folder, "config.json", {})
    if config.has_weights:
        shapes = _tensor_shapes(folder / "model.safetensors")
        if config.soft_prompt:
            rows, wanted = shapes.get("soft_prompt.rows"), [len(config.soft_prompt["token_ids"]), config.hidden_size]
            if rows != wanted:
                raise ArtifactError(
                    f"model.safetensors of {folder} holds soft-token rows of shape {rows}, but config.json asks for "
                    f"{wanted}; the two are of different prompts: save the classifier again"
                )
    _check_tokenizer(folder, config)


def check_nothing_private(folder: Path) -> None:
    """Make sure that no path of this machine and no Hub token stands in what would be published.

    Raises:
        ArtifactError: names the file and the place in it; a token itself is not repeated.
    Example:
        >>> check_nothing_private(Path("outputs/movie-reviews-soft-prompt"))  # doctest: +SKIP
    """
    token = get_token()
    for file in publishable_files(folder):
        if file.suffix not in (".json", ".md") or file.name == "tokenizer.json":  # a vocabulary holds any text
            continue
        for place, text in _texts(file):
            if (token and token in text) or _TOKEN.search(text):
                raise ArtifactError(f"{file.name}{place} of {folder} holds a Hub token; take it out, and revoke it")
            private = _private_path(text)
            if private:
                raise ArtifactError(
                    f"{file.name}{place} of {folder} holds the path {private!r} of this machine; take it out, or give "
                    "the base model's Hub id with --base-model if that is what it names"
                )


def _classifier_config(folder: Path) -> PromptClassifierConfig:
    values = _values(folder / "config.json")
    if values.get("model_type") != PromptClassifierConfig.model_type:
        raise ArtifactError(
            f"{folder} holds a model of type {values.get('model_type')!r}; a {PromptClassifierConfig.model_type!r} or "
            "a PEFT adapter is needed. Push another model with its own push_to_hub"
        )
    config: PromptClassifierConfig = PromptClassifierConfig.from_pretrained(folder)
    config.check_complete()
    return config


def _check_tokenizer(folder: Path, config: PromptClassifierConfig) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except HfPromptingError:
        raise
    except Exception as error:  # tokenizers raises bare exceptions for a damaged tokenizer.json
        raise ArtifactError(
            f"the tokenizer of {folder} is missing or damaged: {type(error).__name__}; save it with the classifier: "
            "tokenizer.save_pretrained(folder)"
        ) from error
    template = getattr(tokenizer, "prompt_template", None)
    if template is None or str(template) != config.template:
        raise ArtifactError(
            f"the tokenizer of {folder} holds the template {None if template is None else str(template)!r}, but "
            f"config.json says {config.template!r}; save the tokenizer that from_base returned with the classifier"
        )
    expected = tuple(config.soft_prompt["token_ids"]) if config.soft_prompt else ()
    if tokenizer.soft_token_ids != expected:
        raise ArtifactError(f"the tokenizer of {folder} has other soft tokens than config.json; save both together")


def _values(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{file.parent} has no {file.name}, so it is no saved classifier") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file} is unreadable or no JSON object; save the folder again") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{file} is no JSON object; save the folder again")
    return values


def _tensor_shapes(file: Path) -> dict[str, list[int]]:
    if not file.is_file():
        raise ArtifactError(f"{file.parent} has no {file.name}; save the classifier again")
    try:
        with safe_open(file, framework="pt") as tensors:
            shapes = {}
            for name in tensors.keys():  # noqa: SIM118  no dict: it has no other iterator
                values = tensors.get_tensor(name)
                shapes[name] = list(values.shape)
                if values.is_floating_point() and not bool(values.isfinite().all()):
                    raise ArtifactError(f"{file} holds values that are not finite in {name}; train again")
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{file} is truncated or damaged: {error}; save the classifier again") from error
    return shapes


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each text of a file with its place, such as ``: recipe.data.path``."""
    if file.suffix == ".json":
        yield from _strings(_values(file), "")
    else:
        yield "", file.read_text(encoding="utf-8", errors="replace")


def _strings(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield f": {place}", value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, place)


def _private_path(text: str) -> str | None:
    """Return the first path in a text that exists here, lies in a folder that does, or below the home folder."""
    home = str(Path.home())
    for found in _PATH.findall(text):
        path = Path(found.rstrip("."))
        places = [path, path.parent] if len(path.parent.parts) > 2 else [path]
        try:
            if any(place.exists() for place in places) or (len(home) > 1 and found.startswith(home)):
                return str(path)
        except OSError:  # longer than any path
            continue
    return None

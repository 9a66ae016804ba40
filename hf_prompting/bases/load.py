"""Loading a base model or its tokenizer from wherever it is, with errors that name the ways out."""

from __future__ import annotations

from typing import Any

from httpx2 import HTTPError
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import CONFIG_NAME, extract_commit_hash

from hf_prompting.bases.hub import hub_problem
from hf_prompting.bases.locate import LocatedBase, as_source, locate_base
from hf_prompting.bases.source import BaseModelSource
from hf_prompting.bases.tasks import BASE_TASKS, base_task_of
from hf_prompting.errors import BaseModelError, did_you_mean

# Keyword arguments of from_pretrained that say how to reach the files, and so hold for the configuration too.
_REACH = ("cache_dir", "force_download", "local_files_only", "proxies", "subfolder", "token")


def load_base_model(
    source: BaseModelSource | str,
    *,
    task: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **from_pretrained_kwargs: Any,
) -> PreTrainedModel:
    """Load a base model with its language-model head.

    Args:
        source: a Hub id, a folder, or a `BaseModelSource`.
        task: a key of `BASE_TASKS`; by default told from the configuration.
        revision: takes the place of the source's revision.
        trust_remote_code: run model code that comes with the checkpoint; never unless asked for.
        **from_pretrained_kwargs: passed on, such as ``dtype``, ``device_map``, ``attn_implementation``, ``token``. Only
            safetensors are read; ``use_safetensors=False`` allows pickled weights, which transformers then restricts.

    Returns:
        The model in evaluation mode.

    Raises:
        BaseModelError: if the model cannot be found, read, or is no language model.

    Example:
        >>> model = load_base_model("google/gemma-3-270m", dtype="bfloat16")  # doctest: +SKIP
    """
    if task is not None and task not in BASE_TASKS:
        raise BaseModelError(
            f"task {task!r} is unknown; allowed: {', '.join(BASE_TASKS)}.{did_you_mean(task, BASE_TASKS)}"
        )
    located = locate_base(source, revision=revision)
    place = _place(located, trust_remote_code)
    from_pretrained_kwargs.setdefault("use_safetensors", True)  # the other format is pickle
    try:
        if task is None:
            reach = {name: from_pretrained_kwargs[name] for name in _REACH if name in from_pretrained_kwargs}
            task = base_task_of(AutoConfig.from_pretrained(located.path_or_id, **place, **reach))
        model: PreTrainedModel = BASE_TASKS[task].from_pretrained(located.path_or_id, **place, **from_pretrained_kwargs)
    except BaseModelError as error:
        raise BaseModelError(f"base model {located.id!r}: {error}") from None
    except (OSError, ValueError, SafetensorError, HTTPError) as error:
        raise BaseModelError(_explanation("base model", located, source, error)) from error
    # The identity, not the folder of the cache that the weights happened to come from: saved prompts record it.
    model.name_or_path = located.id
    if not located.is_local:  # where transformers keeps it too, out of what it saves
        model.config._commit_hash = _commit(located, from_pretrained_kwargs.get("cache_dir"))
    return model


def load_base_tokenizer(
    source: BaseModelSource | str, *, revision: str | None = None, trust_remote_code: bool = False, **kwargs: Any
) -> PreTrainedTokenizerFast:
    """Load a base model's fast tokenizer.

    Args:
        source: as for `load_base_model`.
        revision: takes the place of the source's revision.
        trust_remote_code: run tokenizer code that comes with the checkpoint; never unless asked for.
        **kwargs: passed on to ``AutoTokenizer.from_pretrained``.

    Raises:
        BaseModelError: if the tokenizer cannot be found or read, or exists only in slow form.

    Example:
        >>> tokenizer = load_base_tokenizer("google/gemma-3-270m")  # doctest: +SKIP
    """
    located = locate_base(source, revision=revision)
    place = _place(located, trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(located.path_or_id, **place, **kwargs)
    except (OSError, ValueError, HTTPError) as error:
        raise BaseModelError(_explanation("tokenizer", located, source, error)) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BaseModelError(
            f"the tokenizer of {located.id!r} is a {type(tokenizer).__name__}, which is slow (pure Python); allowed: a "
            "fast one, because templates are compiled into its post-processor. Use a checkpoint with a tokenizer.json"
        )
    return tokenizer


def _commit(located: LocatedBase, cache_dir: str | None) -> str | None:
    """Return the commit that was just read, so that a branch which moves later changes nothing."""
    path = try_to_load_from_cache(located.id, CONFIG_NAME, cache_dir=cache_dir, revision=located.revision)
    commit: str | None = extract_commit_hash(path, None) if isinstance(path, str) else None
    return commit


def _place(located: LocatedBase, trust_remote_code: bool) -> dict[str, Any]:
    revision = {} if located.revision is None else {"revision": located.revision}
    return {"trust_remote_code": trust_remote_code, **revision}


def _explanation(what: str, located: LocatedBase, source: BaseModelSource | str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if located.is_local or not isinstance(error, OSError | HTTPError):
        return f"the {what} in {located.path_or_id!r} cannot be read: {reason} Restore the folder, or name another base"
    reason = hub_problem(located.id, error) or reason
    gguf = as_source(source).gguf
    offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
    ways_out = [
        f"{gguf.install_command}" if gguf else None,
        f"with network: hf download {located.id}{f' --revision {located.revision}' if located.revision else ''}",
        "base_model=... with the path of a folder that has the model",
    ]
    numbered = "; ".join(f"({number}) {way}" for number, way in enumerate(filter(None, ways_out), start=1))
    return (
        f"{what} {located.id!r} was found neither as a folder, nor converted in hf_prompting's cache, nor in an "
        f"installed package, nor on the Hub or in its cache{offline}: {reason.rstrip('.')}. Ways out: {numbered}"
    )

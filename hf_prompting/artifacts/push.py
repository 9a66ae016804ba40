"""Push a saved folder to the Hub: one commit, after every check that needs no network."""

from __future__ import annotations

import fnmatch
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from hf_prompting.artifacts.model_card import OWN_PLACE, CardContents, write_card
from hf_prompting.artifacts.publishable import ADAPTER_FILES, check_nothing_private, check_whole, publishable_files
from hf_prompting.artifacts.versions import installed_versions
from hf_prompting.checksums import reseal
from hf_prompting.classifier import PromptClassifierConfig
from hf_prompting.classifier.remote_code import write_remote_code
from hf_prompting.errors import ArtifactError, HubError
from hf_prompting.templates import PromptTemplate

CARD = "README.md"
CODE = "hf_prompting_*.py"  # of an earlier push, which this one does not bring


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push left on the Hub.

    Attributes:
        repo_id: the repository, with its owner.
        commit: the new commit, or the last one where nothing had changed.
        url: of the repository.
    """

    repo_id: str
    commit: str
    url: str


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    commit_message: str = "Upload a prompt tuned with hf_prompting",
    base_model: str | None = None,
    with_code: bool = False,
) -> Pushed:
    """Push a classifier's (or PEFT adapter's) folder; the folder itself is not changed.

    Args:
        folder: what ``hf-prompting run`` or ``save_pretrained`` wrote.
        repo_id: ``user/name``; made if it does not exist.
        private: make it private. An existing public repository is refused rather than published into.
        branch: branch to push to; made from the main one if it does not exist.
        commit_message: of the one commit that is made.
        base_model: Hub id of the base model, to be recorded instead of a local folder.
        with_code: ship the classifier's source files, so that it loads with ``trust_remote_code=True`` where this
            library is not installed.
    Returns:
        Where it is now.
    Raises:
        ArtifactError: the folder is not whole, or holds a private path or a token; nothing was sent.
        HubError: the Hub refused it or could not be reached; the branch is as it was before.
    Example:
        >>> push_folder(Path("outputs/movie-reviews-soft-prompt"), "me/movie-reviews", private=True)  # doctest: +SKIP
    """
    _check_id(repo_id)
    check_whole(folder)
    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        prepare(folder, copy, repo_id=repo_id, base_model=base_model)
        if with_code:
            if (copy / ADAPTER_FILES[0]).is_file():
                raise ArtifactError("an adapter of PEFT cannot bring its own code; leave --with-code out")
            write_remote_code(copy)
        check_nothing_private(copy)
        return _upload(copy, repo_id, private=private, branch=branch, commit_message=commit_message)


def push_space(
    space: Path, repo_id: str, *, private: bool = False, branch: str | None = None, commit_message: str
) -> Pushed:
    """Push the folder of a Space (``demo.write_space``) to a Space of that name.

    Args:
        space: holds ``app.py``, ``requirements.txt``, ``README.md`` and what they need; all of it is pushed.
        repo_id: ``user/name``; made if it does not exist.
        private: make it private. An existing public Space is refused rather than published into.
        branch: branch to push to; made from the main one if it does not exist.
        commit_message: of the one commit that is made.
    Returns:
        Where it is now.
    Raises:
        ArtifactError: a private path or a token is in the copied prompt; nothing was sent.
        HubError: the Hub refused it or could not be reached; the branch is as it was before.
    Example:
        >>> push_space(Path("my-space"), "me/try-my-prompt", commit_message="Try my prompt")  # doctest: +SKIP
    """
    _check_id(repo_id)
    if constants.HF_HUB_OFFLINE:
        raise HubError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it")
    for folder in [space, *(file.parent for file in space.glob("*/config.json"))]:
        check_nothing_private(folder)
    return _upload(space, repo_id, kind="space", private=private, branch=branch, commit_message=commit_message)


def prepare(folder: Path, copy: Path, *, repo_id: str, base_model: str | None = None) -> None:
    """Copy what is to be published, with the base model's Hub id and a model card that names the repository.

    Raises:
        ArtifactError: the base model is a local folder and no id was given instead.
    """
    for file in publishable_files(folder):
        shutil.copyfile(file, copy / file.name)
    is_adapter = (copy / ADAPTER_FILES[0]).is_file()
    _record_base(copy / (ADAPTER_FILES[0] if is_adapter else "config.json"), base_model)
    if not (copy / CARD).is_file() and not is_adapter:
        write_card(copy, _card_of(PromptClassifierConfig.from_pretrained(copy), name=repo_id.rpartition("/")[2]))
    card = copy / CARD
    if card.is_file():
        card.write_text(card.read_text(encoding="utf-8").replace(OWN_PLACE, repo_id), encoding="utf-8")


def _check_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(f"repository id {repo_id!r} is not valid; allowed: user/name, such as me/my-prompt") from error


def _record_base(file: Path, base_model: str | None) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    recorded = str(values.get("base_model_name_or_path") or "")
    is_local = Path(recorded).is_absolute() or bool(values.get("base_model_is_folder", Path(recorded).is_dir()))
    if base_model is None:
        if is_local:
            raise ArtifactError(
                f"the base model {Path(recorded).name!r} is a local folder, which nobody else has; give the id under "
                "which it is on the Hub with --base-model (push it there first, if it is not)"
            )
        return
    _check_id(base_model)
    if Path(base_model).exists():
        raise ArtifactError(f"--base-model {base_model!r} is a local folder; give the id of the base model on the Hub")
    values["base_model_name_or_path"] = base_model
    if "base_model_is_folder" in values:
        values["base_model_is_folder"] = False
    for name in ("base_model_revision", "revision"):
        if name in values and base_model != recorded:
            values[name] = None
    file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    reseal(file)


def _card_of(config: PromptClassifierConfig, *, name: str) -> CardContents:
    """Return what a configuration alone can tell, for folders that no run has written."""
    template = config.template or ""
    num_soft = len(config.soft_prompt["token_ids"]) if config.soft_prompt else 0
    return CardContents(
        name=name,
        base_model=config.base_model_name_or_path or "",
        base_is_trained=config.trainable_base,
        base_revision=config.base_model_revision,
        template=template,
        fields=[field.name for field in PromptTemplate.parse(template).fields],
        label_words=config.label_words or {},
        num_trained=None if config.trainable_base else num_soft * (config.hidden_size or 0),
        versions=installed_versions(),
    )


def _upload(
    folder: Path, repo_id: str, *, kind: str = "model", private: bool, branch: str | None, commit_message: str
) -> Pushed:
    api = HfApi(library_name="hf_prompting")
    sdk = "gradio" if kind == "space" else None
    try:
        made = api.create_repo(repo_id, repo_type=kind, space_sdk=sdk, private=private or None, exist_ok=True)
        repo_id = made.repo_id
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise HubError(f"{repo_id} exists and is public; make it private in its settings, or choose another id")
        if branch is not None:
            api.create_branch(repo_id, repo_type=kind, branch=branch, exist_ok=True)
        operations = _operations(folder, api.list_repo_files(repo_id, repo_type=kind, revision=branch))
        commit = api.create_commit(repo_id, operations, repo_type=kind, commit_message=commit_message, revision=branch)
    except HubError:
        raise
    except Exception as error:  # the client passes errors of its HTTP library on, which are not ours to name
        raise HubError(_explanation(repo_id, error)) from error
    return Pushed(repo_id=repo_id, commit=commit.oid, url=str(made))


def _operations(folder: Path, there: list[str]) -> list[Any]:
    """Return what one commit does; ``upload_folder`` would make several of a large folder."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    left_over = [name for name in there if fnmatch.fnmatch(name, CODE) and name not in files]
    return [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in left_over),
    ]


def _explanation(repo_id: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    meaning = _STATUS.get(status or 0)
    if meaning:
        return f"the Hub refused {repo_id}: {meaning} (status {status})"
    cause: Any = error.__cause__ or error  # an upload in a thread wraps what went wrong
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return (
        f"{repo_id} could not be pushed: {reason}. A commit is made whole or not at all, so nothing half-sent "
        "is there; check the connection and push again"
    )


_STATUS: dict[int, str] = {
    401: "you are not logged in, or the token is not valid; log in with `hf auth login`, or set HF_TOKEN",
    403: "your token may not write there; use your own name or an organisation of yours, and a token with write access",
    404: "there is no such repository for you; check the id and your token",
    409: "something else changed it at the same time; push again",
}

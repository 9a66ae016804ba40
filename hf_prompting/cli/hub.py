"""``push`` and ``export``: a saved prompt on its way to others."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import BaseModel, Debug


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that a run or save_pretrained saved.")],
    repo_id: Annotated[
        str, typer.Option("--repo-id", metavar="USER/NAME", help="Repository; made if it is not there.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    branch: Annotated[
        str | None, typer.Option("--branch", "--revision", help="Branch to push to; made if it is not there.")
    ] = None,
    commit_message: Annotated[
        str, typer.Option("--commit-message", help="Message of the one commit.")
    ] = "Upload a prompt tuned with hf_prompting",
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="ID", help="Hub id of the base model, where it was tuned on a folder."),
    ] = None,
    with_code: Annotated[
        bool,
        typer.Option("--with-code", help="Ship the code too: it then loads with trust_remote_code=True anywhere."),
    ] = False,
    space: Annotated[
        bool, typer.Option("--space", help="Push the page of `hf-prompting demo` as a Space of that name instead.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Push a saved prompt to the Hub, after checking that it is whole and holds nothing private.

    Log in once with `hf auth login`, or set HF_TOKEN.

    Examples:

    \b
    hf-prompting push outputs/movie-reviews-soft-prompt --repo-id me/movie-reviews
    hf-prompting push outputs/movie-reviews-soft-prompt --repo-id me/movie-reviews --private --branch trial
    hf-prompting push outputs/mine --repo-id me/mine --base-model me/my-base
    hf-prompting push outputs/movie-reviews-soft-prompt --space --repo-id me/try-movie-reviews
    """
    with user_errors(debug):
        if space:
            _push_space(folder, repo_id, private, branch, commit_message, base_model)
            return
        from hf_prompting.artifacts import push_folder

        pushed = push_folder(
            folder,
            repo_id,
            private=private,
            branch=branch,
            commit_message=commit_message,
            base_model=base_model,
            with_code=with_code,
        )
        print(f"Pushed to {pushed.url} (commit {pushed.commit[:12]})")


def _push_space(
    folder: Path, repo_id: str, private: bool, branch: str | None, commit_message: str, base_model: str | None
) -> None:
    from hf_prompting.artifacts import push_space
    from hf_prompting.artifacts.publishable import check_whole
    from hf_prompting.demo.space import write_space

    check_whole(folder)
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "space"
        write_space(str(folder), written, base_model=base_model)
        pushed = push_space(written, repo_id, private=private, branch=branch, commit_message=commit_message)
    print(f"Pushed to {pushed.url} (commit {pushed.commit[:12]})")


def export(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder that a run saved, or its Hub id.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="plain|peft|embeds", help="Merged weights, a PEFT adapter, or embeddings."),
    ],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="New folder to write.")],
    base_model: BaseModel = None,
    debug: Debug = False,
) -> None:
    """Export a saved prompt for programs that do not have this library.

    plain: the base model with the soft tokens in its embedding; loads in plain transformers.
    peft: a stock prompt-tuning adapter, where the soft tokens are a plain prefix.
    embeds: the prompt's embeddings in safetensors, for servers that take prompt embeddings.

    Examples:

    \b
    hf-prompting export outputs/movie-reviews-soft-prompt --to plain --output-dir merged
    hf-prompting export outputs/movie-reviews-soft-prompt --to embeds --output-dir embeddings
    """
    with user_errors(debug):
        from hf_prompting.artifacts.export import check_export, export_classifier

        check_export(output_dir, to)
        from hf_prompting.recipe.prediction import load_classifier

        classifier = load_classifier(folder, base_model=base_model)
        export_classifier(classifier.model, classifier.tokenizer, output_dir, form=to)
        print(f"Exported to {output_dir}; its README.md shows how to use it")

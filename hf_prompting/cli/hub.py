"""``push``: a saved prompt on its way to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_prompting.cli.errors import user_errors
from hf_prompting.cli.options import Debug


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
    debug: Debug = False,
) -> None:
    """Push a saved prompt to the Hub, after checking that it is whole and holds nothing private.

    Log in once with `hf auth login`, or set HF_TOKEN.

    Examples:

    \b
    hf-prompting push outputs/movie-reviews-soft-prompt --repo-id me/movie-reviews
    hf-prompting push outputs/movie-reviews-soft-prompt --repo-id me/movie-reviews --private --branch trial
    hf-prompting push outputs/mine --repo-id me/mine --base-model me/my-base
    """
    with user_errors(debug):
        from hf_prompting.artifacts import push_folder

        pushed = push_folder(
            folder,
            repo_id,
            private=private,
            branch=branch,
            commit_message=commit_message,
            base_model=base_model,
        )
        print(f"Pushed to {pushed.url} (commit {pushed.commit[:12]})")

"""The versions that made a saved folder, so that its numbers can be reproduced."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

RECORDED_PACKAGES = ("hf_prompting", "torch", "transformers", "tokenizers", "peft", "datasets", "accelerate")


def installed_versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Return the version of Python and of each package that can change a result, with those of ``more``.

    Example:
        >>> installed_versions()["transformers"]  # doctest: +SKIP
        '5.23.0'
    """
    versions = {"python": platform.python_version()}
    for package in (*RECORDED_PACKAGES, *more):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout that was never installed
            versions[package] = "unknown"
    return versions

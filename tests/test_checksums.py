"""Sums of saved files: what is damaged, missing or changed is named, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_prompting.checksums import KEY, file_digest, seal, verify
from hf_prompting.errors import ArtifactError


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"abc")
    (tmp_path / "config.json").write_text('{"z": "好", "a": {"10": 1, "9": 2}}', encoding="utf-8")
    seal(tmp_path / "config.json", ["weights", "absent"])
    return tmp_path / "config.json"


def check(settings: Path) -> None:
    verify(settings, lambda name: settings.parent / name)


def test_the_sums_are_those_of_the_bytes(settings: Path) -> None:
    """SHA-256 of "abc" as FIPS 180-2 gives it."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(settings.parent / "weights") == expected
    values = json.loads(settings.read_text(encoding="utf-8"))
    assert values[KEY]["weights"] == expected
    assert list(values[KEY]) == ["weights", "config.json"]
    assert list(values) == ["z", "a", KEY]  # in the order they had
    assert [path.name for path in sorted(settings.parent.iterdir())] == ["config.json", "weights"]
    check(settings)


def test_spacing_line_ends_and_the_order_of_keys_do_not_matter_and_sealing_again_changes_nothing(
    settings: Path,
) -> None:
    text = settings.read_text(encoding="utf-8")
    settings.write_text(json.dumps(json.loads(text), sort_keys=True, indent=1).replace("\n", "\r\n"), encoding="utf-8")
    check(settings)
    settings.write_text(text, encoding="utf-8")
    seal(settings, ["weights", "absent"])
    assert settings.read_text(encoding="utf-8") == text


def test_whatever_was_changed_is_named(settings: Path) -> None:
    text = settings.read_text(encoding="utf-8")
    for old, new, message in (
        ('"好"', '"坏"', r"config\.json is not as it was saved"),
        ("ba7816", "ba7817", r"weights is not as it was saved"),
        (KEY, "checksum5", r"holds no checksums"),
        ("{", "", r"unreadable or no JSON"),
        (text, "[]", r"no JSON object"),
    ):
        settings.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ArtifactError, match=message):
            check(settings)
    settings.write_text(text, encoding="utf-8")
    (settings.parent / "weights").unlink()
    with pytest.raises(ArtifactError, match="weights is missing"):
        check(settings)


def test_a_change_on_purpose_is_declared_with_null(settings: Path) -> None:
    values = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**values, "z": "changed", KEY: None}), encoding="utf-8")
    check(settings)

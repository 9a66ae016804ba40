"""Sums of saved files: what is damaged, missing or changed is named, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_prompting.checksums import KEY, file_digest, seal, verify
from hf_prompting.errors import ArtifactError

TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(TEXTS.filter(lambda name: name != KEY), VALUES, max_size=4)


@pytest.fixture(name="sealed")
def sealed_settings(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"abc")
    (tmp_path / "config.json").write_text('{"z": "好", "a": {"10": 1, "9": 2}}', encoding="utf-8")
    seal(tmp_path / "config.json", ["weights", "absent"])
    return tmp_path / "config.json"


def check(sealed: Path) -> None:
    verify(sealed, lambda name: sealed.parent / name)


def test_the_sums_are_those_of_the_bytes(sealed: Path) -> None:
    """SHA-256 of "abc" as FIPS 180-2 gives it."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(sealed.parent / "weights") == expected
    values = json.loads(sealed.read_text(encoding="utf-8"))
    assert values[KEY]["weights"] == expected
    assert list(values[KEY]) == ["weights", "config.json"]
    assert list(values) == ["z", "a", KEY]  # in the order they had
    assert [path.name for path in sorted(sealed.parent.iterdir())] == ["config.json", "weights"]
    check(sealed)


def test_spacing_line_ends_and_the_order_of_keys_do_not_matter_and_sealing_again_changes_nothing(
    sealed: Path,
) -> None:
    text = sealed.read_text(encoding="utf-8")
    sealed.write_text(json.dumps(json.loads(text), sort_keys=True, indent=1).replace("\n", "\r\n"), encoding="utf-8")
    check(sealed)
    sealed.write_text(text, encoding="utf-8")
    seal(sealed, ["weights", "absent"])
    assert sealed.read_text(encoding="utf-8") == text


def test_whatever_was_changed_is_named(sealed: Path) -> None:
    text = sealed.read_text(encoding="utf-8")
    for old, new, message in (
        ('"好"', '"坏"', r"config\.json is not as it was saved"),
        ("ba7816", "ba7817", r"weights is not as it was saved"),
        (KEY, "checksum5", r"holds no checksums"),
        ("{", "", r"unreadable or no JSON"),
        (text, "[]", r"no JSON object"),
    ):
        sealed.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ArtifactError, match=message):
            check(sealed)
    sealed.write_text(text, encoding="utf-8")
    (sealed.parent / "weights").unlink()
    with pytest.raises(ArtifactError, match="weights is missing"):
        check(sealed)


def test_a_change_on_purpose_is_declared_with_null(sealed: Path) -> None:
    values = json.loads(sealed.read_text(encoding="utf-8"))
    sealed.write_text(json.dumps({**values, "z": "changed", KEY: None}), encoding="utf-8")
    check(sealed)


@settings(deadline=None, max_examples=50)
@given(values=SETTINGS, other=SETTINGS)
def test_any_settings_are_sealed_and_any_others_are_refused(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], other: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    seal(file, [])
    check(file)
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert {name: value for name, value in kept.items() if name != KEY} == values
    assume(json.dumps(other, sort_keys=True) != json.dumps(values, sort_keys=True))
    file.write_text(json.dumps({**other, KEY: kept[KEY]}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="not as it was saved"):
        check(file)

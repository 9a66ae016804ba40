"""A verbalizer judges itself when it is made."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from hf_prompting import Verbalizer
from hf_prompting.errors import LabelWordError

WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no mapping": (["bad", "good"], {}, "at least two labels"),
    "no labels": ({}, {}, "at least two labels"),
    "one label": ({"a": "bad"}, {}, "at least two labels"),
    "no words": ({"a": [], "b": "good"}, {}, "label 'a' has no label words"),
    "empty word": ({"a": "", "b": "good"}, {}, "label word '' of label 'a' is empty"),
    "blank word": ({"a": "bad", "b": ["good", " \n"]}, {}, "of label 'b' is empty"),
    "word is no text": ({"a": [1], "b": "good"}, {}, "label word 1 of label 'a'"),
    "words are no list": ({"a": 3, "b": "good"}, {}, "label 'a'"),
    "label is no text": ({0: "bad", 1: "good"}, {}, "label 0 must be a non-empty string.*'0'"),
    "empty label": ({"": "bad", "b": "good"}, {}, "label ''"),
    "one word twice": ({"a": ["bad", "bad"], "b": "good"}, {}, "belongs to label 'a' and to 'a'"),
    "one word of two labels": ({"a": "bad", "b": ["good", "bad"]}, {}, "belongs to label 'a' and to 'b'"),
    "aggregation": ({"a": "bad", "b": "good"}, {"aggregation": "meen"}, "Did you mean 'mean'"),
    "words are a set": ({"a": {"bad", "worse"}, "b": "good"}, {}, "of label 'a' must be a string or a list"),
    "half a character": ({"a": "b\ud800", "b": "good"}, {}, "of label 'a' holds half a character"),
    "half a character in a label": ({"a\udfff": "bad", "b": "good"}, {}, "must be a non-empty string"),
}


@pytest.mark.parametrize("words, kwargs, message", WRONG.values(), ids=WRONG)
def test_a_wrong_verbalizer_is_one_clear_error(words: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(LabelWordError, match=message):
        Verbalizer(words, **kwargs)


def test_the_order_of_the_labels_is_the_order_of_the_classes() -> None:
    verbalizer = Verbalizer({"z": "bad", "a": "good", "m": ["fine", "fair"]})
    assert verbalizer.labels == ("z", "a", "m")
    assert [verbalizer.label_id(label) for label in verbalizer.labels] == [0, 1, 2]
    assert verbalizer.words == {"z": ("bad",), "a": ("good",), "m": ("fine", "fair")}


def test_an_unknown_label_names_the_nearest() -> None:
    with pytest.raises(LabelWordError, match=r"label 'postive' is not in the verbalizer.*Did you mean 'positive'"):
        Verbalizer({"negative": "bad", "positive": "good"}).label_id("postive")


def test_a_verbalizer_cannot_be_changed() -> None:
    given = {"a": ["bad"], "b": ["good"]}
    verbalizer = Verbalizer(given)
    with pytest.raises(FrozenInstanceError):
        verbalizer.aggregation = "max"  # type: ignore[misc]
    with pytest.raises(TypeError):
        verbalizer.words["a"] = ("worse",)  # type: ignore[index]
    given["a"].append("worse")
    assert verbalizer.words["a"] == ("bad",)


def test_a_verbalizer_is_copied_pickled_and_replaced_whole() -> None:
    verbalizer = Verbalizer({"z": "bad", "a": ["good", "fine"]}, aggregation="max", leading_space=False)
    for again in (copy.deepcopy(verbalizer), pickle.loads(pickle.dumps(verbalizer))):  # our own bytes
        assert again == verbalizer and again.labels == ("z", "a")
    assert replace(verbalizer, aggregation="mean").labels == ("z", "a")

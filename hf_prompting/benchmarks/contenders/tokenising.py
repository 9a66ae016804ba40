"""From rows to ids and attention masks, 64 rows a call: by the template inside the tokenizer, and by Python strings.

Both are what a user calls, ``tokenizer(texts)``, with the tokenizer's own threads. transformers finds the characters of
every token as well; a compiled tokenizer does so when it is asked for them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from transformers import AutoTokenizer

from hf_prompting.benchmarks.contenders.given import Settings, rows
from hf_prompting.templates import PromptTemplate, SlotKind, compile_template

_AT_ONCE = 64


def ours(settings: Settings) -> Callable[[], dict[str, Any]]:
    """The compiled tokenizer puts the template around each text."""
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    template = PromptTemplate.parse(settings["template"])
    compiled = compile_template(template, tokenizer, slot=SlotKind.CAUSAL).tokenizer
    return _round(settings, lambda texts: compiled(**template.render_batch({"text": texts}, tokenizer=compiled)))


def strings(settings: Settings) -> Callable[[], dict[str, Any]]:
    """A format string, then the base's own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    pattern = settings["template"].replace("{mask}", "")
    return _round(settings, lambda texts: tokenizer([pattern.format(text=text) for text in texts]))


def _round(settings: Settings, encode: Callable[[list[str]], Any]) -> Callable[[], dict[str, Any]]:
    some = [row["text"] for row in rows(settings)]
    texts = list(itertools.islice(itertools.cycle(some), settings["num_texts"]))

    def chunks() -> Iterator[list[list[int]]]:
        for start in range(0, len(texts), _AT_ONCE):
            yield encode(texts[start : start + _AT_ONCE])["input_ids"]

    ids = hashlib.sha256("".join(map(repr, chunks())).encode()).hexdigest()  # compared, but no part of the work

    def one_round() -> dict[str, Any]:
        lengths = [len(row) for chunk in chunks() for row in chunk]
        return {"num_rows": len(lengths), "num_tokens": sum(lengths), "ids": ids}

    return one_round

"""Train a tokenizer on texts, with the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")


def train_tokenizer(texts: Iterable[str], *, kind: str = "unigram", vocab_size: int = 8000) -> PreTrainedTokenizerFast:
    """Train a tokenizer that ends every text with ``</s>``.

    Args:
        texts: what it is trained on.
        kind: ``unigram`` (Kudo, 2018) or ``bpe`` (Sennrich et al., 2016).
        vocab_size: pieces at most.
    Example:
        >>> train_tokenizer(["a b"], vocab_size=20).eos_token
        '</s>'
    """
    special = list(SPECIAL_TOKENS)
    backend = Tokenizer(models.Unigram() if kind == "unigram" else models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer: Any = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    if kind == "unigram":
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")

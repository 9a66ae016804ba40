"""Generate texts with any encoder-decoder, and compare them with references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sacrebleu
import torch

from hf_prompting.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNLIMITED = 10**9  # tokenizers without a limit of their own say 10**30


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    *,
    batch_size: int = 32,
    decoder_prefix: Sequence[int] = (),
    **generation: Any,
) -> list[str]:
    """Generate a text for every source. The order and the size of batches change nothing but the time.

    Args:
        model: with a generating head.
        tokenizer: its tokenizer; sources longer than its ``model_max_length`` are cut.
        sources: N texts.
        batch_size: B rows at a time, of similar length.
        decoder_prefix: ids of soft tokens that the decoder reads behind its start.
        **generation: what ``generate`` takes, such as ``num_beams``; the model's own configuration by default.
    Returns:
        N texts, in the order of the sources, without special tokens.
    Example:
        >>> generate_texts(model, tokenizer, ["Good morning."], num_beams=4)  # doctest: +SKIP
        ['早上好。']
    """
    cut = tokenizer.model_max_length < UNLIMITED
    all_ids = tokenizer(list(sources), truncation=cut)["input_ids"]
    order = sorted(range(len(sources)), key=lambda row: len(all_ids[row]))
    texts = [""] * len(sources)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            batch = tokenizer.pad({"input_ids": [all_ids[row] for row in rows]}, return_tensors="pt").to(model.device)
            if decoder_prefix:
                start = [model.generation_config.decoder_start_token_id, *decoder_prefix]
                generation["decoder_input_ids"] = torch.tensor([start] * len(rows), device=model.device)
            ids = model.generate(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], do_sample=False, **generation
            )
            for row, text in zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                texts[row] = text.strip()
    model.train(was_training)
    return texts


def corpus_bleu(texts: Sequence[str], references: Sequence[str], *, tokenizer: str = "13a") -> float:
    """Corpus BLEU, 0 to 100, as sacrebleu computes it (Papineni et al., 2002; Post, 2018, arXiv:1804.08771).

    Example:
        >>> round(corpus_bleu(["今天天气很好。"], ["今天天气很好。"], tokenizer="zh"))
        100
    """
    return float(sacrebleu.corpus_bleu(list(texts), [list(references)], tokenize=tokenizer).score)


def corpus_chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100: F-score of character n-grams (Popović, 2015), as sacrebleu computes it.

    Example:
        >>> round(corpus_chrf(["good morning"], ["good morning"]))
        100
    """
    return float(sacrebleu.corpus_chrf(list(texts), [list(references)]).score)


def rouge_l(texts: Sequence[str], references: Sequence[str]) -> float:
    """Mean ROUGE-L F-score, 0 to 100 (Lin, 2004), on words; every Chinese character is a word.

    Raises:
        RecipeError: the package rouge-score is not installed.
    Example:
        >>> round(rouge_l(["春天 来了"], ["春天 来了"]))  # doctest: +SKIP
        100
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise RecipeError('metric rouge_l needs the package rouge-score: pip install "hf_prompting[rouge]"') from error
    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    pairs = zip(references, texts, strict=True)
    scores: list[float] = [scorer.score(reference, text)["rougeL"].fmeasure for reference, text in pairs]
    return 100 * sum(scores) / len(scores)


class _Words:
    """Words as sacrebleu's Chinese tokenizer cuts them; rouge-score's own drops everything that is not a-z or 0-9."""

    def __init__(self) -> None:
        from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

        self._cut: Callable[[str], str] = TokenizerZh()

    def tokenize(self, text: str) -> list[str]:
        return self._cut(text.lower()).split()


def text_metrics(
    texts: Sequence[str], references: Sequence[str], metrics: Sequence[str], *, bleu_tokenizer: str = "13a"
) -> dict[str, float]:
    """Return the named scores of N generated texts against N references: ``bleu``, ``chrf``, ``rouge_l``.

    Example:
        >>> sorted(text_metrics(["a b c d"], ["a b c d"], ["bleu", "chrf"]))
        ['bleu', 'chrf']
    """
    table: dict[str, Callable[[], float]] = {
        "bleu": lambda: corpus_bleu(texts, references, tokenizer=bleu_tokenizer),
        "chrf": lambda: corpus_chrf(texts, references),
        "rouge_l": lambda: rouge_l(texts, references),
    }
    return {name: table[name]() for name in metrics}

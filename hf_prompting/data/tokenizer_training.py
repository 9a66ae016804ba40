"""Train a tokenizer on texts, so that nothing is ever unknown and every text comes back exactly."""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hf_prompting.errors import TokenizerTrainingError

PAD, EOS, UNK, BOS, MASK = "<pad>", "</s>", "<unk>", "<s>", "<mask>"
BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# Chinese apart from other letters, digits apart from each other (so that no text spells a byte piece), and one space
# with what follows it. Every character is in some match, so the matches are the text.
WORDS = r" ?\p{Han}+| ?[\p{L}\p{M}&&[^\p{Han}]]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
ALPHABET = (*string.ascii_letters, *string.digits, *string.punctuation, " ", "\n", *"，。！？、；：“”（）")
LONGEST_PIECE = 16
_SEPARATOR = "\0"
_LADDER_STEP = 1e-4  # between the scores that the Unigram trainer gives to characters that it never used

Pieces = list[tuple[str, float]]


@dataclass(frozen=True)
class _Order:
    """The vocabulary but for the learned pieces: special tokens first, byte pieces, …, soft tokens last."""

    special: tuple[str, ...]
    soft: tuple[str, ...]

    @property
    def num_fixed(self) -> int:
        return len(self.special) + len(BYTE_PIECES) + len(self.soft)

    def vocabulary(self, learned: Sequence[str]) -> tuple[str, ...]:
        return (*self.special, *BYTE_PIECES, *learned, *self.soft)


def train_tokenizer(
    texts: Iterable[str],
    *,
    kind: Literal["unigram", "bpe"] = "unigram",
    vocab_size: int = 8000,
    num_sentinels: int = 100,
    num_soft_tokens: int = 0,
    add_bos: bool = False,
    character_coverage: float = 0.9995,
    allow_fewer: bool = False,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer that serves as source and target tokenizer of ``Seq2SeqTransformer…`` and of every objective.

    The vocabulary begins with ``<pad>`` 0, ``</s>`` 1, ``<unk>`` 2, ``<mask>`` 3 (then ``<s>``, if wished), the
    sentinels ``<extra_id_0>``… and 256 byte pieces. A character that is not in the vocabulary becomes its UTF-8 bytes,
    so ``<unk>`` is never produced, and since nothing is normalised, ``decode`` gives every text back exactly. (The
    spelling of a special token inside a text is read as that token, unless ``split_special_tokens=True``.) Every text
    is ended with ``</s>``. Equal texts in equal order give an equal tokenizer.

    Args:
        texts: any number of texts, Chinese or other.
        kind: ``unigram`` (Kudo, 2018, arXiv:1804.10959) or ``bpe`` (Sennrich et al., 2016, arXiv:1508.07909).
        vocab_size: V, all tokens together, so the rows of the embedding.
        num_sentinels: ``<extra_id_0>`` and so on, for span corruption.
        num_soft_tokens: ``<|soft_0|>`` and so on at the end, for ``SoftPromptConfig(token_ids=...)``.
        add_bos: put ``<s>`` before every text.
        character_coverage: share of the texts' characters that get a piece; the rarest are left to their bytes.
        allow_fewer: take fewer tokens where the texts do not hold so many pieces, instead of an error.
    Returns:
        A fast tokenizer of exactly ``vocab_size`` tokens (or fewer, if allowed).
    Raises:
        TokenizerTrainingError: there is no text, an option is not allowed, or the texts do not fit the size.
    Example:
        >>> tokenizer = train_tokenizer(["a rose is a rose"] * 9, kind="bpe", vocab_size=500, allow_fewer=True)
        >>> tokenizer.decode(tokenizer("rose 🌹")["input_ids"], skip_special_tokens=True)
        'rose 🌹'
    """
    if kind not in TRAINERS:
        raise TokenizerTrainingError(f"kind is {kind!r}; allowed: {', '.join(TRAINERS)}")
    if not 0 < character_coverage <= 1:
        raise TokenizerTrainingError(f"character_coverage is {character_coverage}; allowed: above 0, at most 1")
    order = _Order(
        (PAD, EOS, UNK, MASK, *([BOS] if add_bos else []), *_numbered("<extra_id_{}>", num_sentinels)),
        tuple(_numbered("<|soft_{}|>", num_soft_tokens)),
    )
    texts = list(texts)
    characters = _covered(texts, character_coverage)
    room = vocab_size - order.num_fixed
    if room < len(characters):
        raise TokenizerTrainingError(
            f"vocab_size is {vocab_size}, too small: {order.num_fixed} special tokens and bytes and {len(characters)} "
            f"characters need {order.num_fixed + len(characters)}; give at least that, or lower character_coverage "
            f"(now {character_coverage:g})"
        )
    model, num_learned = TRAINERS[kind](list(_parts(texts, characters)), characters, room, order)
    if num_learned < room and not allow_fewer:
        raise TokenizerTrainingError(
            f"vocab_size is {vocab_size}, too large: these texts hold only {num_learned} pieces; give at most "
            f"{order.num_fixed + num_learned}, or more texts"
        )
    return _assembled(model, order, add_bos=add_bos)


def _assembled(model: models.Model, order: _Order, *, add_bos: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (*order.special, *order.soft)]
    )
    frame = [BOS] if add_bos else []
    backend.post_processor = processors.TemplateProcessing(
        single=[*frame, "$A", EOS],
        pair=[*frame, "$A", EOS, "$B", EOS],
        special_tokens=[(token, backend.token_to_id(token)) for token in (*frame, EOS)],
    )
    named = {"pad_token": PAD, "eos_token": EOS, "unk_token": UNK, "mask_token": MASK}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **named,
        **({"bos_token": BOS} if add_bos else {}),
        extra_special_tokens=[token for token in (*order.special, *order.soft) if token.startswith(("<extra", "<|"))],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _train_unigram(texts: list[str], alphabet: Sequence[str], room: int, order: _Order) -> tuple[models.Model, int]:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    trainer = trainers.UnigramTrainer(
        vocab_size=room + 1,  # <unk> is one of its own
        special_tokens=[UNK],
        unk_token=UNK,
        initial_alphabet=list(alphabet),
        max_piece_length=LONGEST_PIECE,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = _in_fixed_order(_pieces_of(backend))[:room]
    scores = dict(learned)
    lowest = min(scores.values())
    vocabulary = order.vocabulary([piece for piece, _ in learned])
    # The tokens that no text spells have a score too; theirs is below all others, so that none is ever preferred.
    scored = [(piece, scores.get(piece, lowest - 1)) for piece in vocabulary]
    return models.Unigram(scored, unk_id=order.special.index(UNK), byte_fallback=True), len(learned)


def _pieces_of(backend: Tokenizer) -> Pieces:
    pieces = json.loads(backend.to_str())["model"]["vocab"]
    return [(piece, score) for piece, score in pieces if piece != UNK]


def _in_fixed_order(pieces: Pieces) -> Pieces:
    """Undo what is random in the trainer's result.

    Characters that it never used get scores on a ladder in an order by chance, and sums of several threads differ in
    the last digits.
    """
    lowest = min(score for _, score in pieces)
    ladder = lowest + _LADDER_STEP * len(pieces)
    fixed = [(piece, lowest if len(piece) == 1 and score < ladder else score) for piece, score in pieces]
    rounded = [(piece, round(score, 6)) for piece, score in fixed]
    return sorted(rounded, key=lambda pair: (-pair[1], pair[0]))


def _train_bpe(texts: list[str], alphabet: Sequence[str], room: int, order: _Order) -> tuple[models.Model, int]:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=list(alphabet), max_token_length=LONGEST_PIECE, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    state = json.loads(backend.to_str())["model"]
    learned = sorted(state["vocab"], key=state["vocab"].__getitem__)
    vocabulary = {piece: token_id for token_id, piece in enumerate(order.vocabulary(learned))}
    merges = [tuple(merge) for merge in state["merges"]]
    return models.BPE(vocabulary, merges, unk_token=UNK, fuse_unk=True, byte_fallback=True), len(learned)


TRAINERS = {"unigram": _train_unigram, "bpe": _train_bpe}


def _covered(texts: Sequence[str], coverage: float) -> list[str]:
    """Return the alphabet and the most frequent characters that make up this share of all texts, sorted."""
    counts = Counter(character for text in texts for character in text if character != _SEPARATOR)
    if not counts:
        raise TokenizerTrainingError("there is no text to train a tokenizer on; give at least one row with text")
    covered, needed = 0, coverage * counts.total()
    characters = set(ALPHABET)
    for character, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if covered >= needed:
            break
        covered += count
        characters.add(character)
    return sorted(characters)


def _parts(texts: Sequence[str], characters: Sequence[str]) -> Iterator[str]:
    """Cut texts where a character stands that gets no piece."""
    known = set(characters)
    rare = {ord(character): _SEPARATOR for text in texts for character in set(text) - known}
    for text in texts:
        yield from filter(None, text.translate(rare).split(_SEPARATOR))


def _numbered(name: str, count: int) -> list[str]:
    if count < 0:
        raise TokenizerTrainingError(f"{count} tokens such as {name.format(0)} are asked for; allowed: 0 or more")
    return [name.format(number) for number in range(count)]

"""Small tokenizers, trained in-process, one for each real pipeline that a template has to fit.

Each function copies the normalizer, pre-tokenizer, model and post-processor of a well-known family and takes only the
vocabulary from the few sentences below. It is built once per process; every call returns a fresh tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "Review: The movie was great and the actors were good.\nThe movie was great",
    "Review: The movie was terrible, a bad and boring story.\nThe movie was terrible",
    "Text: I loved every minute of it!\nSentiment: positive",
    "Text: I hated it, 2 hours of my life in 1999...\nSentiment: negative",
    "It was good. It was bad. It was great. It was terrible.",
    "Premise: a man is eating. Hypothesis: nobody is eating? Answer: no, yes or maybe",
    "The film is wonderful, moving and funny; the film is awful, slow and dull.",
    "<|im_start|>user\nIs this review good or bad?\n\nAnswer with one word.<|im_end|>\n<|im_start|>assistant\n",
    "评论：这部电影很好，演员非常好。\n情感：正面",
    "评论：这部电影很差，故事非常差！\n情感：负面",
    "这家餐厅的服务很好，我很喜欢。很满意。",
    "商品质量太差了，不推荐，我很失望。情感是负面还是正面？",
    "体育 财经 科技 娱乐 新闻：今天的比赛很精彩。",
)
CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level_bpe() -> PreTrainedTokenizerFast:
    """GPT-2: byte-level BPE that adds nothing around a text and has no padding token."""
    return _wrap(_byte_level_json(), bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def smollm_bpe() -> PreTrainedTokenizerFast:
    """SmolLM2: digits apart, then byte-level BPE; chat tokens."""
    return _wrap(_smollm_json(), bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>")


def qwen_bpe() -> PreTrainedTokenizerFast:
    """Qwen and Llama 3: NFC, a splitting pattern, byte-level BPE; chat tokens and the ordinary added token <think>."""
    return _wrap(_qwen_json(), eos_token="<|im_end|>", pad_token="<|endoftext|>")


def roberta_bpe() -> PreTrainedTokenizerFast:
    """RoBERTa: byte-level BPE, <s> text </s>, and a <mask> that swallows the space to its left."""
    return _wrap(
        _roberta_json(),
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True, normalized=False),
    )


def bert_wordpiece() -> PreTrainedTokenizerFast:
    """BERT uncased: WordPiece, [CLS] text [SEP], Chinese characters apart."""
    return _wrap(
        _bert_json(),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def t5_unigram() -> PreTrainedTokenizerFast:
    """T5: Unigram behind Metaspace, text </s>, sentinels <extra_id_0> ... <extra_id_9>."""
    return _wrap(_t5_json(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def llama_metaspace_bpe() -> PreTrainedTokenizerFast:
    """Llama 2: BPE with byte fallback behind a normalizer that prepends a dummy space; <s> text."""
    return _wrap(_llama_json(), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def gemma_bpe() -> PreTrainedTokenizerFast:
    """Gemma: BPE with byte fallback, spaces become "▁" with no dummy space; <bos> text; "\\n\\n" is an added token."""
    return _wrap(_gemma_json(), bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


ALL_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level_bpe": byte_level_bpe,
    "smollm_bpe": smollm_bpe,
    "qwen_bpe": qwen_bpe,
    "roberta_bpe": roberta_bpe,
    "bert_wordpiece": bert_wordpiece,
    "t5_unigram": t5_unigram,
    "llama_metaspace_bpe": llama_metaspace_bpe,
    "gemma_bpe": gemma_bpe,
}


def _wrap(tokenizer_json: str, **special: object) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_json),
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        **special,
    )


def _train_byte_level(tokenizer: Tokenizer, special: tuple[str, ...]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.decoder = decoders.ByteLevel()


@cache
def _byte_level_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _train_byte_level(tokenizer, CHAT_TOKENS[:1])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return str(tokenizer.to_str())


@cache
def _smollm_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    _train_byte_level(tokenizer, CHAT_TOKENS)
    return str(tokenizer.to_str())


@cache
def _qwen_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    _train_byte_level(tokenizer, CHAT_TOKENS)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return str(tokenizer.to_str())


@cache
def _roberta_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _train_byte_level(tokenizer, ("<s>", "<pad>", "</s>", "<unk>"))
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=("</s>", tokenizer.token_to_id("</s>")),
        cls_token=("<s>", tokenizer.token_to_id("<s>")),
        add_prefix_space=False,
    )
    return str(tokenizer.to_str())


@cache
def _bert_json() -> str:
    """Every word and every character of the sentences: the WordPiece trainer breaks ties at random."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in SENTENCES for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))}
    characters = {character for word in words for character in word}
    pieces = [*special, *sorted(characters), *sorted(f"##{c}" for c in characters), *sorted(words - characters)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return str(tokenizer.to_str())


@cache
def _t5_json() -> str:
    """Every English word, with and without a space before it, and every character: the Unigram trainer is not exact."""
    text = " ".join(SENTENCES)
    words = sorted(set(re.findall("[A-Za-z]{2,}", text)))
    characters = sorted(set(text.replace(" ", "▁").replace("\n", "")) - {"："} | {":"})
    pieces = [(f"▁{word}", -7.0) for word in words] + [(word, -9.0) for word in words]
    special = ["<pad>", "</s>", "<unk>"]
    vocab = [(token, 0.0) for token in special] + pieces + [(character, -8.0) for character in characters]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=2))
    # Stand-in for the precompiled nmt_nfkc map: line breaks are spaces, and spaces do not repeat.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"[\n\t]"), " "), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens([*special, *(f"<extra_id_{index}>" for index in reversed(range(10)))])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return str(tokenizer.to_str())


def _train_metaspace_bpe(tokenizer: Tokenizer, special: tuple[str, ...]) -> None:
    """Train with words apart, as sentencepiece does, then leave spaces to the normalizer as Llama and Gemma do."""
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=[*special, *byte_tokens], show_progress=False)
    tokenizer.train_from_iterator([f" {line}" for text in SENTENCES * 3 for line in text.split("\n")], trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def _without_byte_tokens_added(tokenizer: Tokenizer, special: tuple[str, ...]) -> Tokenizer:
    """The trainer makes added tokens of the byte tokens; a real vocabulary holds them as plain pieces."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(state))


@cache
def _llama_json() -> str:
    special = ("<unk>", "<s>", "</s>")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    _train_metaspace_bpe(tokenizer, special)
    tokenizer = _without_byte_tokens_added(tokenizer, special)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return str(tokenizer.to_str())


@cache
def _gemma_json() -> str:
    special = ("<pad>", "<eos>", "<bos>", "<unk>")
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    _train_metaspace_bpe(tokenizer, special)
    tokenizer = _without_byte_tokens_added(tokenizer, special)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.add_tokens([AddedToken("\n", normalized=False), AddedToken("\n\n", normalized=False)])
    tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return str(tokenizer.to_str())

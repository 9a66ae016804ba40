"""The models of a generation recipe: its own, and the peers that are trained beside it in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peft import get_peft_model
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_prompting.bases import BaseModelSource, load_base_model
from hf_prompting.recipe.generation_schema import (
    BartSection,
    GenerationRecipe,
    ModelSection,
    PeerSection,
    SourcePromptSection,
)
from hf_prompting.seq2seq import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration
from hf_prompting.soft_prompts import SoftPromptConfig

PRESETS: dict[str, Callable[..., Seq2SeqTransformerConfig]] = {
    "modern": Seq2SeqTransformerConfig,
    "vanilla": Seq2SeqTransformerConfig.vanilla,
    "t5": Seq2SeqTransformerConfig.t5,
}
OWN = "own"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One model of a run.

    Attributes:
        name: ``own``, or a key of ``compare``.
        title: what tables and pictures call it.
        learning_rate: at its peak.
        make: builds it, with the random weights that the current seed gives.
        soft_prompt: what is tuned instead of the weights, if anything.
    """

    name: str
    title: str
    learning_rate: float
    make: Callable[[], PreTrainedModel]
    soft_prompt: SourcePromptSection | None = None


def contestants_of(recipe: GenerationRecipe, tokenizer: PreTrainedTokenizerFast) -> list[Contestant]:
    """Return the recipe's own model, first, and its peers in the order of the schema.

    Example:
        >>> [contestant.name for contestant in contestants_of(recipe, tokenizer)]  # doctest: +SKIP
        ['own', 'bart']
    """
    compare, pretrained = recipe.compare, recipe.model.pretrained

    def contestant(name: str, title: str, make: Callable[[], PreTrainedModel], peer: PeerSection | None) -> Contestant:
        rate = peer.learning_rate if peer is not None and peer.learning_rate is not None else None
        return Contestant(
            name=name,
            title=title,
            learning_rate=recipe.training.learning_rate if rate is None else rate,
            make=make,
            soft_prompt=recipe.soft_prompt if name == OWN else None,
        )

    if pretrained is None:
        own = contestant(OWN, f"ours, {recipe.model.preset}", lambda: new_model(recipe, tokenizer), None)
    else:
        title = "soft prompt" if recipe.soft_prompt else "fine-tuned"
        own = contestant(OWN, title, lambda: pretrained_model(pretrained), None)
    found = [own]
    if compare.bart is not None:
        found.append(contestant("bart", "BART", lambda: bart_model(recipe, tokenizer), compare.bart))
    if compare.random_weights is not None and pretrained is not None:
        found.append(
            contestant(
                "random_weights", "from random weights", lambda: random_model(pretrained), compare.random_weights
            )
        )
    if compare.full_fine_tuning is not None and pretrained is not None:
        found.append(
            contestant(
                "full_fine_tuning", "full fine-tuning", lambda: pretrained_model(pretrained), compare.full_fine_tuning
            )
        )
    return found


def new_config(recipe: GenerationRecipe, *, vocab_size: int, **special_ids: Any) -> Seq2SeqTransformerConfig:
    """Return the configuration of a new model.

    Args:
        recipe: its ``model`` section has the sizes.
        vocab_size: rows of the embedding.
        **special_ids: ``pad_token_id`` and the like.
    Raises:
        Seq2SeqConfigError: the sizes do not fit each other, or an argument is refused.
    """
    return config_of(recipe.model, vocab_size=vocab_size, longest_text=longest_text(recipe), **special_ids)


def config_of(
    section: ModelSection, *, vocab_size: int, longest_text: int, **special_ids: Any
) -> Seq2SeqTransformerConfig:
    """Return the configuration that a recipe's ``model`` section says.

    Args:
        section: the sizes.
        vocab_size: rows of the embedding.
        longest_text: tokens that positions must be there for, on either side.
        **special_ids: ``pad_token_id`` and the like.
    Raises:
        Seq2SeqConfigError: the sizes do not fit each other, or an argument is refused.
    Example:
        >>> config_of(ModelSection(hidden_size=192), vocab_size=99, longest_text=64).intermediate_size
        512
    """
    return PRESETS[section.preset](
        **{
            "vocab_size": vocab_size,
            "hidden_size": section.hidden_size,
            "intermediate_size": inner_width(section),
            "num_encoder_layers": section.num_layers,
            "num_decoder_layers": section.num_layers,
            "num_attention_heads": section.num_attention_heads,
            "max_position_embeddings": longest_text,
            "dropout": section.dropout,
            **special_ids,
            **section.arguments,
        }
    )


def inner_width(section: ModelSection) -> int:
    """Return the width inside the feed-forward blocks; the modern preset has three matrices there instead of two.

    Example:
        >>> inner_width(ModelSection(hidden_size=192)), inner_width(ModelSection(hidden_size=192, preset="vanilla"))
        (512, 768)
    """
    if section.intermediate_size is not None:
        return section.intermediate_size
    return round(section.hidden_size * 8 / 3) if section.preset == "modern" else 4 * section.hidden_size


def longest_text(recipe: GenerationRecipe) -> int:
    """Return the tokens that positions must be there for, on either side."""
    training = recipe.training
    return max(training.max_source_length, training.max_target_length, recipe.evaluation.max_new_tokens + 1)


def new_model(recipe: GenerationRecipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return a model of this library's family with random weights."""
    config = new_config(recipe, vocab_size=len(tokenizer), **special_ids_of(tokenizer))
    return Seq2SeqTransformerForConditionalGeneration(config)


def bart_model(recipe: GenerationRecipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return a BART of the same sizes with random weights; its feed-forward blocks have two matrices of 4 H."""
    section, peer = recipe.model, recipe.compare.bart or BartSection()
    width = 4 * section.hidden_size
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=section.hidden_size,
        encoder_ffn_dim=width,
        decoder_ffn_dim=width,
        encoder_layers=section.num_layers,
        decoder_layers=section.num_layers,
        encoder_attention_heads=section.num_attention_heads,
        decoder_attention_heads=section.num_attention_heads,
        max_position_embeddings=longest_text(recipe),
        dropout=section.dropout,
        attention_dropout=peer.attention_dropout,
        activation_dropout=peer.activation_dropout,
        forced_eos_token_id=None,
        **special_ids_of(tokenizer),
    )
    return BartForConditionalGeneration(config)


def pretrained_model(id_or_folder: str) -> PreTrainedModel:
    """Load a pretrained encoder-decoder, in float32: half precision is for the computation, not for the weights.

    Raises:
        BaseModelError: it is not there, or no encoder-decoder.
    """
    return load_base_model(BaseModelSource(id_or_folder), task="seq2seq").float().train()


def random_model(id_or_folder: str) -> PreTrainedModel:
    """Return the architecture of a pretrained model with random weights."""
    return AutoModelForSeq2SeqLM.from_config(pretrained_model(id_or_folder).config).float()


@dataclass(frozen=True, kw_only=True)
class SoftPrompted:
    """A frozen model with soft tokens.

    Attributes:
        model: the PEFT model.
        tokenizer: puts the soft tokens before or behind every source.
        decoder_prefix: ids before every target.
    """

    model: Any
    tokenizer: PreTrainedTokenizerFast
    decoder_prefix: tuple[int, ...]


def with_soft_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, section: SourcePromptSection, *, seed: int
) -> SoftPrompted:
    """Freeze a model and give it soft tokens; the tokenizer inserts those of the source by itself.

    Example:
        >>> with_soft_prompt(model, tokenizer, SourcePromptSection(source=20), seed=0)  # doctest: +SKIP
    """
    names = [f"<|soft_{number}|>" for number in range(section.source + section.target)]
    prompted = _plain_copy(tokenizer)
    prompted.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    ids = [int(prompted.convert_tokens_to_ids(name)) for name in names]
    _insert(prompted, names[: section.source], behind=section.place == "behind")
    config = SoftPromptConfig(token_ids=ids, init=section.init, seed=seed, task_type="SEQ_2_SEQ_LM")
    return SoftPrompted(
        model=get_peft_model(model, config), tokenizer=prompted, decoder_prefix=tuple(ids[section.source :])
    )


def _plain_copy(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Copy a tokenizer into the plain class; typed ones rebuild their pipeline on loading and drop soft tokens."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=tokenizer.model_max_length, **tokenizer.special_tokens_map
    )


def _insert(tokenizer: PreTrainedTokenizerFast, names: Sequence[str], *, behind: bool) -> None:
    """Put soft tokens next to a text, between it and what the tokenizer itself puts around it."""
    around = tokenizer("")["input_ids"]
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next(number for number in range(len(whole)) if whole[number : number + len(text)] == text)
    first, last = (tokenizer.convert_ids_to_tokens(ids) for ids in (around[:start], around[start:]))
    pieces = [*first, "$A", *names, *last] if behind else [*first, *names, "$A", *last]
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in {*first, *names, *last}}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=pieces, special_tokens=list(ids.items()))


def special_ids_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the ids that a model's configuration takes from its tokenizer; the decoder starts with padding (T5)."""
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
        **({} if tokenizer.bos_token_id is None else {"bos_token_id": tokenizer.bos_token_id}),
    }

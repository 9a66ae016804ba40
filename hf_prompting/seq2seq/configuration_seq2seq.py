"""Configuration of the encoder-decoder family: sizes, a few switches, and three presets that set the switches."""

# No "from __future__ import annotations": @strict reads the types of the fields, and a string would not be checked.
import copy
import os
from typing import Any, Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from hf_prompting.errors import Seq2SeqConfigError, did_you_mean
from hf_prompting.seq2seq.remote_code import write_remote_code

# Each switch and its values, with the paper that a value comes from.
CHOICES: dict[str, dict[str, str]] = {
    "position_type": {
        "sinusoidal": "added to the embeddings; Vaswani et al., 2017, arXiv:1706.03762",
        "learned": "a trained row for each position, added to the embeddings; Gehring et al., 2017, arXiv:1705.03122",
        "rotary": "rotates queries and keys; Su et al., 2021, arXiv:2104.09864",
        "relative": "learned bias of the scores by distance; Raffel et al., 2020, arXiv:1910.10683",
    },
    "norm_type": {
        "layer_norm": "Ba et al., 2016, arXiv:1607.06450",
        "rms_norm": "Zhang and Sennrich, 2019, arXiv:1910.07467",
    },
    "norm_position": {
        "post": "behind each residual sum; Vaswani et al., 2017, arXiv:1706.03762",
        "pre": "before each block; Xiong et al., 2020, arXiv:2002.04745",
    },
}
_AT_LEAST_ONE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
)
_PROBABILITIES = ("dropout", "attention_dropout", "activation_dropout", "classifier_dropout")


@strict
class Seq2SeqTransformerConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of every ``Seq2SeqTransformer...`` model. The defaults are the modern preset.

    ``vanilla(...)`` and ``t5(...)`` set the switches to those of the two classic models; sizes stay free.

    Args:
        vocab_size: rows V of the token embedding and of the output projection.
        hidden_size: width H of embeddings and hidden states (d_model; Vaswani et al., 2017, arXiv:1706.03762).
        intermediate_size: inner width of the feed-forward blocks (d_ff; same source). The default is 8/3 of H, rounded
            up to a multiple of 128, because a gated block has three matrices (Shazeer, 2020, arXiv:2002.05202).
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        num_attention_heads: query heads of each attention.
        num_key_value_heads: key and value heads, shared by groups of query heads (Ainslie et al., 2023,
            arXiv:2305.13245). None: as many as query heads.
        head_dim: width of one head. None: ``hidden_size / num_attention_heads``. T5 calls it d_kv.
        max_position_embeddings: longest sequence that sinusoidal and learned positions accept; the length that rotary
            positions are meant for. Relative positions have no limit. (While a static cache is in use the length is a
            tensor on the device and is not checked.)
        position_type: "sinusoidal", "learned", "rotary" or "relative"; see ``CHOICES`` for the sources of all switches.
        rope_parameters: ``rope_theta`` and optional scaling of rotary positions, in transformers' form. Unused
            otherwise.
        relative_attention_num_buckets: rows of the relative position bias (Raffel et al., 2020, arXiv:1910.10683).
        relative_attention_max_distance: distances from here on share the last bucket (same source).
        norm_type: "layer_norm" or "rms_norm".
        norm_position: "post" or "pre".
        norm_eps: added to the variance in each norm.
        final_norm: whether a norm follows the last layer of each stack. Pre-norm needs it; the 2017 paper has none, but
            ``torch.nn.Transformer`` does.
        hidden_act: activation of the feed-forward blocks, a name that transformers knows.
        gated_feed_forward: multiply the activated projection with a second one (Shazeer, 2020, arXiv:2002.05202).
        use_bias: whether the projections of attention and feed-forward have biases.
        scale_attention: divide the scores by ``sqrt(head_dim)`` (Vaswani et al., 2017); T5 does not.
        scale_embedding: multiply embeddings by ``sqrt(hidden_size)`` (Vaswani et al., 2017, section 3.4).
        scale_output: multiply the decoder's states by ``hidden_size ** -0.5`` before the output projection, as T5 with
            a tied head does.
        dropout: of embeddings and of each block's output.
        attention_dropout: of the attention weights.
        activation_dropout: of the inner feed-forward states.
        classifier_dropout: before the classification heads.
        initializer_range: standard deviation of new weights.
        embedding_initializer_range: the same for the token embedding. None: ``initializer_range``. T5 uses 1.0.
        tie_word_embeddings: whether the output projection is the token embedding (Press and Wolf, 2017,
            arXiv:1608.05859). Encoder and decoder always share one embedding.
        use_cache: whether the decoder returns keys and values for the next step.
        pad_token_id: id of padding; also the base of the -100 labels' decoder input.
        bos_token_id: id of the beginning of a text, if the tokenizer has one.
        eos_token_id: id that ends a text.
        decoder_start_token_id: first id that the decoder reads.
        is_encoder_decoder: False in an encoder-only model of this family.

    Raises:
        Seq2SeqConfigError: on creation, if a value is not allowed or does not fit another one.

    Example:
        >>> Seq2SeqTransformerConfig(hidden_size=64, num_attention_heads=4).head_dim
        16
    """

    model_type = "hf_prompting_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012  (the form that transformers reads)
    attribute_map = {"num_hidden_layers": "num_encoder_layers"}  # noqa: RUF012

    vocab_size: int = 32000
    hidden_size: int = 512
    intermediate_size: int = 1408
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 1024
    position_type: str = "rotary"
    rope_parameters: dict[str, Any] | None = None
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    norm_type: str = "rms_norm"
    norm_position: str = "pre"
    norm_eps: float = 1e-6
    final_norm: bool = True
    hidden_act: str = "silu"
    gated_feed_forward: bool = True
    use_bias: bool = False
    scale_attention: bool = True
    scale_embedding: bool = False
    scale_output: bool = False
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    classifier_dropout: float | int = 0.0
    initializer_range: float = 0.02
    embedding_initializer_range: float | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 1
    decoder_start_token_id: int | None = 0
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self._check_sizes()
        self._check_choices()
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self._head_dim_of_width()
        self._check_fit()
        super().__post_init__(**kwargs)
        if self.position_type != "rotary":
            self.rope_parameters = None

    @classmethod
    def vanilla(cls, **kwargs: Any) -> Self:
        """Return the original Transformer (Vaswani et al., 2017, arXiv:1706.03762), as ``torch.nn.Transformer`` is.

        Sinusoidal positions added to scaled embeddings, post-norm LayerNorm, ReLU, biases. Any field may be given.

        Example:
            >>> Seq2SeqTransformerConfig.vanilla(hidden_size=64, num_attention_heads=4).norm_position
            'post'
        """
        return cls(**{**_VANILLA, **kwargs})

    @classmethod
    def t5(cls, **kwargs: Any) -> Self:
        """Return T5's architecture (Raffel et al., 2020, arXiv:1910.10683), v1.0 unless fields say otherwise.

        For v1.1, Flan and mT5 pass ``hidden_act="gelu_new", gated_feed_forward=True, tie_word_embeddings=False,
        scale_output=False``; ``from_t5`` reads all of it from a checkpoint.

        Example:
            >>> Seq2SeqTransformerConfig.t5(hidden_size=64, num_attention_heads=4).position_type
            'relative'
        """
        dropout = kwargs.get("dropout", 0.1)
        spread = {"attention_dropout": dropout, "activation_dropout": dropout}  # T5 has one rate for all places
        return cls(**{**_T5, **spread, **kwargs})

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as every configuration does; after ``register_for_auto_class``, with all source files."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if self._auto_class is not None:
            write_remote_code(save_directory)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the view of one side; transformers sizes the decoder's caches by ``num_hidden_layers`` of it."""
        if not decoder or encoder or self.num_encoder_layers == self.num_decoder_layers:
            return self
        side = copy.deepcopy(self)
        side.num_encoder_layers = self.num_decoder_layers
        return side

    @property
    def head_sizes(self) -> tuple[int, int]:
        """Width of one head and number of key heads, where None has become a number."""
        assert self.head_dim is not None and self.num_key_value_heads is not None, "filled in on creation"
        return self.head_dim, self.num_key_value_heads

    def _head_dim_of_width(self) -> int:
        if self.hidden_size % self.num_attention_heads:
            raise Seq2SeqConfigError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}; "
                "choose a multiple, or give head_dim explicitly"
            )
        return self.hidden_size // self.num_attention_heads

    def _check_sizes(self) -> None:
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Seq2SeqConfigError(f"{name} is {value}; allowed: integers from 1")
        for name in _PROBABILITIES:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise Seq2SeqConfigError(f"{name} is {value}; allowed: from 0 to below 1")
        if not self.norm_eps > 0:
            raise Seq2SeqConfigError(f"norm_eps is {self.norm_eps}; allowed: above 0")

    def _check_choices(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                hint = did_you_mean(value, choices)
                raise Seq2SeqConfigError(f"{name} {value!r} is unknown; allowed: {', '.join(sorted(choices))}.{hint}")
        if self.hidden_act not in ACT2FN:
            hint = did_you_mean(self.hidden_act, ACT2FN)
            raise Seq2SeqConfigError(
                f"hidden_act {self.hidden_act!r} is unknown; allowed: a key of transformers.activations.ACT2FN.{hint}"
            )

    def _check_fit(self) -> None:
        head_dim, num_key_value_heads = self.head_sizes
        if self.num_attention_heads % num_key_value_heads:
            raise Seq2SeqConfigError(
                f"num_attention_heads {self.num_attention_heads} is not divisible by num_key_value_heads "
                f"{num_key_value_heads}; allowed: its divisors"
            )
        if self.position_type == "rotary" and head_dim % 2:
            raise Seq2SeqConfigError(f"head_dim is {head_dim}; rotary positions turn pairs, so it must be even")
        if self.position_type == "sinusoidal" and self.hidden_size % 2:
            raise Seq2SeqConfigError(f"hidden_size is {self.hidden_size}; sinusoidal positions need an even width")
        buckets, distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if self.position_type == "relative" and (buckets < 4 or buckets % 2 or distance <= buckets // 2):
            raise Seq2SeqConfigError(
                f"relative_attention_num_buckets {buckets} and relative_attention_max_distance {distance} do not fit; "
                "allowed: an even number of at least 4 buckets, and a distance above half of it"
            )


_VANILLA: dict[str, Any] = {
    "intermediate_size": 2048,
    "position_type": "sinusoidal",
    "norm_type": "layer_norm",
    "norm_position": "post",
    "norm_eps": 1e-5,
    "hidden_act": "relu",
    "gated_feed_forward": False,
    "use_bias": True,
    "scale_embedding": True,
}
_T5: dict[str, Any] = {
    "vocab_size": 32128,
    "intermediate_size": 2048,
    "position_type": "relative",
    "hidden_act": "relu",
    "gated_feed_forward": False,
    "scale_attention": False,
    "scale_output": True,
    "embedding_initializer_range": 1.0,
}

"""The encoder-decoder, its generating head, and the encoder alone."""

# No "from __future__ import annotations": transformers reads the annotation of **kwargs to see what forward accepts.
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import TransformersKwargs, can_return_tuple

from hf_prompting.cpu_products import Linear
from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.chunked_loss import can_chunk, states_loss
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.decoding_layout import lay_out_for_decoding
from hf_prompting.seq2seq.decoding_step import DecodingStep
from hf_prompting.seq2seq.generation import Seq2SeqTransformerGenerationMixin
from hf_prompting.seq2seq.layers import Seq2SeqTransformerEmbedding
from hf_prompting.seq2seq.loss import IGNORED, token_loss
from hf_prompting.seq2seq.stacks import (
    Seq2SeqTransformerDecoder,
    Seq2SeqTransformerEncoder,
    Seq2SeqTransformerPreTrainedModel,
)


def shift_right(ids: Tensor, config: Seq2SeqTransformerConfig) -> Tensor:
    """Put the start id before (B, T) labels and drop the last one, so that position t reads label t - 1.

    Ignored labels (-100) are read as padding.

    Raises:
        Seq2SeqInputError: if the configuration has no ``decoder_start_token_id`` or ``pad_token_id``.
    Example:
        >>> shift_right(torch.tensor([[5, 6, -100]]), Seq2SeqTransformerConfig()).tolist()
        [[0, 5, 6]]
    """
    if config.decoder_start_token_id is None or config.pad_token_id is None:
        raise Seq2SeqInputError(
            "the decoder's input can only be made from labels if config.decoder_start_token_id and config.pad_token_id "
            f"are set; they are {config.decoder_start_token_id} and {config.pad_token_id}. Set them, or pass "
            "decoder_input_ids"
        )
    start = torch.full_like(ids[:, :1], config.decoder_start_token_id)
    return torch.cat((start, ids[:, :-1]), dim=1).masked_fill_(
        torch.cat((torch.zeros_like(start, dtype=torch.bool), ids[:, :-1] == IGNORED), dim=1), config.pad_token_id
    )


class Seq2SeqTransformerModel(Seq2SeqTransformerPreTrainedModel):
    """Encoder and decoder with one shared token embedding, without a head.

    Without decoder inputs the decoder reads the encoder's own input, shifted right.

    Example:
        >>> config = Seq2SeqTransformerConfig(vocab_size=99, hidden_size=32, num_attention_heads=4)
        >>> Seq2SeqTransformerModel(config)(torch.tensor([[5, 6]])).last_hidden_state.shape
        torch.Size([1, 2, 32])
    """

    _tied_weights_keys = {  # noqa: RUF012  (the form that transformers reads)
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    }

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config)
        self.shared = Seq2SeqTransformerEmbedding(config)
        self.encoder = Seq2SeqTransformerEncoder(config)
        self.decoder = Seq2SeqTransformerDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding that both sides share."""
        return self.shared

    def set_input_embeddings(self, value: Seq2SeqTransformerEmbedding) -> None:
        """Replace the embedding of both sides."""
        self.shared = self.encoder.embed_tokens = self.decoder.embed_tokens = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> Seq2SeqModelOutput:
        """Encode (B, S) ids and decode (B, T) ids; every tensor of ids may be given as embeddings instead.

        Args:
            input_ids: (B, S) ids that the encoder reads.
            attention_mask: (B, S), 0 for padding.
            decoder_input_ids: (B, T) ids that the decoder reads.
            decoder_attention_mask: (B, past + T), 0 for padding.
            encoder_outputs: the encoder's output, if it has been computed before.
            past_key_values: the decoder's cache.
            inputs_embeds: (B, S, H) instead of ``input_ids``.
            decoder_inputs_embeds: (B, T, H) instead of ``decoder_input_ids``.
            use_cache: whether to return a cache.
        Raises:
            Seq2SeqInputError: for inputs that are missing, empty, too long, or outside the vocabulary.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, decoder_inputs_embeds = self._own_input_shifted(input_ids, inputs_embeds)
        if encoder_outputs is None:
            encoded = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        elif isinstance(encoder_outputs, BaseModelOutput):
            encoded = encoder_outputs
        else:
            encoded = BaseModelOutput(*encoder_outputs)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def _own_input_shifted(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        if input_ids is not None:
            return shift_right(input_ids, self.config), None
        if inputs_embeds is not None:
            return None, torch.cat((self.embed_start(inputs_embeds), inputs_embeds[:, :-1]), dim=1)
        raise Seq2SeqInputError(
            "the decoder has nothing to read; pass decoder_input_ids, decoder_inputs_embeds or labels, or the "
            "encoder's input_ids"
        )

    def embed_start(self, like: Tensor) -> Tensor:
        """Return the start token's embedding for each row of ``like`` (B, ...) -> (B, 1, H)."""
        start = shift_right(torch.zeros(like.shape[0], 1, dtype=torch.long, device=like.device), self.config)
        embedded: Tensor = self.decoder.embed_tokens(start)
        return embedded


class Seq2SeqTransformerForConditionalGeneration(Seq2SeqTransformerGenerationMixin, Seq2SeqTransformerPreTrainedModel):
    """The encoder-decoder with an output projection to the vocabulary: trains on labels and generates.

    Example:
        >>> config = Seq2SeqTransformerConfig(vocab_size=99, hidden_size=32, num_attention_heads=4)
        >>> ids = torch.tensor([[5, 6]])
        >>> Seq2SeqTransformerForConditionalGeneration(config)(ids, labels=ids).loss.shape
        torch.Size([])
    """

    _tied_weights_keys = {"lm_head.weight": "model.shared.weight"}  # noqa: RUF012
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}  # noqa: RUF012
    _fsdp_plan = {"lm_head": "keep_full_weight"}  # noqa: RUF012

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config)
        self.model = Seq2SeqTransformerModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.output_scale = config.hidden_size**-0.5 if config.scale_output else 1.0
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        skip_logits: bool | None = None,
        decoding_step: DecodingStep | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> Seq2SeqLMOutput:
        """Score the vocabulary at each decoder position, and compute the loss if there are labels.

        Args:
            input_ids: (B, S) ids that the encoder reads.
            attention_mask: (B, S), 0 for padding.
            decoder_input_ids: (B, T); made from ``labels`` if missing.
            decoder_attention_mask: (B, past + T), 0 for padding.
            encoder_outputs: the encoder's output, if it has been computed before.
            past_key_values: the decoder's cache.
            inputs_embeds: (B, S, H) instead of ``input_ids``.
            decoder_inputs_embeds: (B, T, H) instead of ``decoder_input_ids``.
            labels: (B, T) ids to predict, -100 to ignore; not shifted.
            use_cache: whether to return a cache; never while there are labels.
            logits_to_keep: how many last positions to score, or which; 0 for all.
            num_items_in_batch: see ``token_loss``.
            decoding_step: what ``generate`` has prepared, for one new token a row: computes the logits instead.
            skip_logits: return the loss alone, without ever holding scores of all positions (see ``states_loss``).
                None: in training mode with labels, where a vocabulary of scores a token is most of the memory and
                nobody reads it; pass False to get them there too. Where the head is more than a matrix (an adapter on
                it, ``torch.compile``, tensor parallelism) the scores are there in any case.
        Raises:
            Seq2SeqInputError: for inputs that are missing, empty, too long, or outside the vocabulary.
        """
        if decoding_step is not None and decoder_input_ids is not None:
            return Seq2SeqLMOutput(logits=decoding_step(decoder_input_ids), past_key_values=past_key_values)
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = shift_right(labels, self.config)
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        states = slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep)
        states = states if self.output_scale == 1.0 else states * self.output_scale
        loss = logits = None
        if labels is not None:
            labels = slice_logits_to_keep(labels[..., None], logits_to_keep)[..., 0]
        if skip_logits is None:
            skip_logits = self.training and torch.is_grad_enabled()
        if labels is not None and skip_logits and can_chunk(self.lm_head):
            loss = states_loss(states, self.lm_head, labels, num_items_in_batch)
        else:
            logits = self.lm_head(states)
            if labels is not None:
                loss = token_loss(logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def lay_out_for_decoding(self, *, compiled: bool = False) -> Self:
        """Store the matrices as a CPU generates fastest with them; same values, same ``state_dict``. Return the model.

        Args:
            compiled: lay out the encoder's only. For up to 64 texts or beams at a time a compiled step is faster still,
                from a decoder's matrices as they are:
                ``generate(..., cache_implementation="static", compile_config=CompileConfig())``.
        Raises:
            Seq2SeqInputError: in training mode.
        """
        lay_out_for_decoding(self.model.encoder if compiled else self)
        return self

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder's input for (B, T) labels; data collators call it."""
        return shift_right(labels, self.config)


class Seq2SeqTransformerEncoderModel(Seq2SeqTransformerPreTrainedModel):
    """The encoder alone; loads from any checkpoint of the family.

    Example:
        >>> config = Seq2SeqTransformerConfig(vocab_size=99, hidden_size=32, num_attention_heads=4)
        >>> Seq2SeqTransformerEncoderModel(config)(torch.tensor([[5, 6]])).last_hidden_state.shape
        torch.Size([1, 2, 32])
    """

    _tied_weights_keys = {"encoder.embed_tokens.weight": "shared.weight"}  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = (r"decoder\.", r"lm_head\.")

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config)
        self.shared = Seq2SeqTransformerEmbedding(config)
        self.encoder = Seq2SeqTransformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding."""
        return self.shared

    def set_input_embeddings(self, value: Seq2SeqTransformerEmbedding) -> None:
        """Replace the token embedding."""
        self.shared = self.encoder.embed_tokens = value

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> BaseModelOutput:
        """Encode (B, T) ids, or (B, T, H) embeddings; see ``Seq2SeqTransformerEncoder.forward``."""
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)

"""Heads that classify: whole texts, single tokens, and the span of an answer."""

# No "from __future__ import annotations": transformers reads the annotation of **kwargs to see what forward accepts.
from typing import Unpack

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    Seq2SeqQuestionAnsweringModelOutput,
    Seq2SeqSequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import TransformersKwargs, can_return_tuple

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.loss import sequence_loss, span_loss, token_loss
from hf_prompting.seq2seq.modeling_seq2seq import Seq2SeqTransformerEncoderModel, Seq2SeqTransformerModel
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerPreTrainedModel


class Seq2SeqTransformerForSequenceClassification(Seq2SeqTransformerPreTrainedModel):
    """Scores of C labels for a text: the decoder reads the start token and its state is classified.

    The decoder's one state attends to the whole text, so no end token is needed and embeddings do as well as ids. With
    decoder inputs of one's own, the last of them that is not padding is read.

    Example:
        >>> config = Seq2SeqTransformerConfig(vocab_size=99, hidden_size=32, num_attention_heads=4, num_labels=3)
        >>> Seq2SeqTransformerForSequenceClassification(config)(torch.tensor([[5, 6]])).logits.shape
        torch.Size([1, 3])
    """

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config)
        self.model = Seq2SeqTransformerModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> Seq2SeqSequenceClassifierOutput:
        """Classify (B, S) ids. -> logits (B, C), and a loss if there are labels; see ``sequence_loss``.

        The other arguments are those of ``Seq2SeqTransformerModel.forward``.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            states = None if encoder_outputs is None else encoder_outputs[0]
            given = next((part for part in (input_ids, inputs_embeds, states) if part is not None), None)
            if given is None:
                raise Seq2SeqInputError("there is nothing to classify; pass input_ids or inputs_embeds")
            decoder_inputs_embeds, decoder_attention_mask = self.model.embed_start(given), None
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=False if labels is not None else use_cache,
            **kwargs,
        )
        states = outputs.last_hidden_state
        logits = self.classifier(self.dropout(_last_of_each_row(states, decoder_attention_mask)))
        loss = None if labels is None else sequence_loss(logits, labels, self.config, num_items_in_batch)
        return Seq2SeqSequenceClassifierOutput(
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


class Seq2SeqTransformerForTokenClassification(Seq2SeqTransformerPreTrainedModel):
    """Scores of C labels for each token, read from the encoder alone, whose states see both directions.

    Example:
        >>> config = Seq2SeqTransformerConfig(vocab_size=99, hidden_size=32, num_attention_heads=4, num_labels=3)
        >>> Seq2SeqTransformerForTokenClassification(config)(torch.tensor([[5, 6]])).logits.shape
        torch.Size([1, 2, 3])
    """

    _keys_to_ignore_on_load_unexpected = (r"decoder\.", r"lm_head\.")

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config)
        self.model = Seq2SeqTransformerEncoderModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> TokenClassifierOutput:
        """Classify each of (B, T) ids. -> logits (B, T, C), and a loss if there are (B, T) labels, -100 ignored."""
        outputs = self.model(input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        return TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels, num_items_in_batch),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class Seq2SeqTransformerForQuestionAnswering(Seq2SeqTransformerPreTrainedModel):
    """Scores of each token to be the first or the last of the answer; the decoder reads the text again.

    Example:
        >>> config = Seq2SeqTransformerConfig(vocab_size=99, hidden_size=32, num_attention_heads=4)
        >>> Seq2SeqTransformerForQuestionAnswering(config)(torch.tensor([[5, 6]])).start_logits.shape
        torch.Size([1, 2])
    """

    def __init__(self, config: Seq2SeqTransformerConfig) -> None:
        super().__init__(config)
        self.model = Seq2SeqTransformerModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],  # type: ignore[misc]
    ) -> Seq2SeqQuestionAnsweringModelOutput:
        """Score the tokens of (B, T) ids. -> start and end logits (B, T), and a loss if both (B,) positions are given.

        The other arguments are those of ``Seq2SeqTransformerModel.forward``.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache if start_positions is None else False,
            **kwargs,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        return Seq2SeqQuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )


def _last_of_each_row(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """(B, T, H) -> (B, H): the last state of each row that is not padding."""
    if attention_mask is None:
        return states[:, -1]
    numbers = torch.arange(states.shape[1], device=states.device)
    last = (numbers * attention_mask.to(states.device).bool()).argmax(dim=1)
    return states[torch.arange(states.shape[0], device=states.device), last]

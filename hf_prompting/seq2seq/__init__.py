"""The encoder-decoder family: configuration, models and heads, and conversion from and to T5."""

from hf_prompting.seq2seq.configuration_seq2seq import Seq2SeqTransformerConfig
from hf_prompting.seq2seq.conversion import from_t5, to_t5
from hf_prompting.seq2seq.modeling_heads import (
    Seq2SeqTransformerForQuestionAnswering,
    Seq2SeqTransformerForSequenceClassification,
    Seq2SeqTransformerForTokenClassification,
)
from hf_prompting.seq2seq.modeling_seq2seq import (
    Seq2SeqTransformerEncoderModel,
    Seq2SeqTransformerForConditionalGeneration,
    Seq2SeqTransformerModel,
)
from hf_prompting.seq2seq.stacks import Seq2SeqTransformerPreTrainedModel

__all__ = [
    "Seq2SeqTransformerConfig",
    "Seq2SeqTransformerEncoderModel",
    "Seq2SeqTransformerForConditionalGeneration",
    "Seq2SeqTransformerForQuestionAnswering",
    "Seq2SeqTransformerForSequenceClassification",
    "Seq2SeqTransformerForTokenClassification",
    "Seq2SeqTransformerModel",
    "Seq2SeqTransformerPreTrainedModel",
    "from_t5",
    "to_t5",
]

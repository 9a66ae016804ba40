"""Tune a prompt instead of a model, on the Hugging Face stack.

Importing this package registers its classes with transformers' Auto classes and its soft tokens with PEFT.
"""

from importlib.metadata import version

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from hf_prompting.bases import BaseModelSource
from hf_prompting.classifier import PromptBank, PromptClassifierConfig, PromptForSequenceClassification
from hf_prompting.errors import HfPromptingError
from hf_prompting.seq2seq import (
    Seq2SeqTransformerConfig,
    Seq2SeqTransformerEncoderModel,
    Seq2SeqTransformerForConditionalGeneration,
    Seq2SeqTransformerForQuestionAnswering,
    Seq2SeqTransformerForSequenceClassification,
    Seq2SeqTransformerForTokenClassification,
    Seq2SeqTransformerModel,
    from_t5,
    to_t5,
)
from hf_prompting.soft_prompts import SoftPromptConfig, SoftTokensModel
from hf_prompting.templates import PromptTemplate, PromptTokenizer, compile_template
from hf_prompting.verbalizers import Verbalizer

__version__ = version("hf_prompting")

AutoConfig.register(PromptClassifierConfig.model_type, PromptClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PromptClassifierConfig, PromptForSequenceClassification, exist_ok=True)
AutoTokenizer.register(PromptClassifierConfig, tokenizer_class=PromptTokenizer, exist_ok=True)

_SEQ2SEQ_AUTO_CLASSES = {
    AutoModel: Seq2SeqTransformerModel,
    AutoModelForSeq2SeqLM: Seq2SeqTransformerForConditionalGeneration,
    AutoModelForSequenceClassification: Seq2SeqTransformerForSequenceClassification,
    AutoModelForTokenClassification: Seq2SeqTransformerForTokenClassification,
    AutoModelForQuestionAnswering: Seq2SeqTransformerForQuestionAnswering,
}
AutoConfig.register(Seq2SeqTransformerConfig.model_type, Seq2SeqTransformerConfig, exist_ok=True)
for _auto_class, _model_class in _SEQ2SEQ_AUTO_CLASSES.items():
    _auto_class.register(Seq2SeqTransformerConfig, _model_class, exist_ok=True)

__all__ = [
    "BaseModelSource",
    "HfPromptingError",
    "PromptBank",
    "PromptClassifierConfig",
    "PromptForSequenceClassification",
    "PromptTemplate",
    "PromptTokenizer",
    "Seq2SeqTransformerConfig",
    "Seq2SeqTransformerEncoderModel",
    "Seq2SeqTransformerForConditionalGeneration",
    "Seq2SeqTransformerForQuestionAnswering",
    "Seq2SeqTransformerForSequenceClassification",
    "Seq2SeqTransformerForTokenClassification",
    "Seq2SeqTransformerModel",
    "SoftPromptConfig",
    "SoftTokensModel",
    "Verbalizer",
    "compile_template",
    "from_t5",
    "to_t5",
]

"""Tune a prompt instead of a model, on the Hugging Face stack.

Importing this package registers its classes with transformers' Auto classes and its soft tokens with PEFT.
"""

from importlib.metadata import version

from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from hf_prompting.bases import BaseModelSource
from hf_prompting.classifier import PromptClassifierConfig, PromptForSequenceClassification
from hf_prompting.errors import HfPromptingError
from hf_prompting.soft_prompts import SoftPromptConfig, SoftTokensModel
from hf_prompting.templates import PromptTemplate, PromptTokenizer, compile_template
from hf_prompting.verbalizers import Verbalizer

__version__ = version("hf_prompting")

AutoConfig.register(PromptClassifierConfig.model_type, PromptClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PromptClassifierConfig, PromptForSequenceClassification, exist_ok=True)
AutoTokenizer.register(PromptClassifierConfig, tokenizer_class=PromptTokenizer, exist_ok=True)

__all__ = [
    "BaseModelSource",
    "HfPromptingError",
    "PromptClassifierConfig",
    "PromptForSequenceClassification",
    "PromptTemplate",
    "PromptTokenizer",
    "SoftPromptConfig",
    "SoftTokensModel",
    "Verbalizer",
    "compile_template",
]

"""The classifier: a plain ``PreTrainedModel`` over any base model."""

from hf_prompting.classifier.bank import PromptBank
from hf_prompting.classifier.configuration_prompt import PromptClassifierConfig
from hf_prompting.classifier.modeling_prompt import PromptForSequenceClassification

__all__ = ["PromptBank", "PromptClassifierConfig", "PromptForSequenceClassification"]

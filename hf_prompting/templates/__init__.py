"""Templates: a small language for prompts, compiled into a fast tokenizer."""

from hf_prompting.templates.alignment import TokenizationDifference
from hf_prompting.templates.compiler import CompiledTemplate, SlotKind, SoftRun, compile_template
from hf_prompting.templates.describe import PromptToken, describe_prompt, tokenization_difference
from hf_prompting.templates.layout import PartKind
from hf_prompting.templates.segments import AnswerSlot, Field, Segment, SoftTokens, Text
from hf_prompting.templates.template import PromptTemplate
from hf_prompting.templates.tokenizer import PromptTokenizer

__all__ = [
    "AnswerSlot",
    "CompiledTemplate",
    "Field",
    "PartKind",
    "PromptTemplate",
    "PromptToken",
    "PromptTokenizer",
    "Segment",
    "SlotKind",
    "SoftRun",
    "SoftTokens",
    "Text",
    "TokenizationDifference",
    "compile_template",
    "describe_prompt",
    "tokenization_difference",
]

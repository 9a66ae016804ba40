"""Shows a compiled prompt token by token, and where it differs from the prompt written as one string."""

from __future__ import annotations

from dataclasses import dataclass

from hf_prompting.errors import TemplateError
from hf_prompting.templates.alignment import TokenizationDifference, rendered_ids
from hf_prompting.templates.field_pipeline import original_backend
from hf_prompting.templates.layout import Part, PartKind, installed_parts, prompt_parts, token_names
from hf_prompting.templates.template import PromptTemplate
from hf_prompting.templates.tokenizer import PIPELINE_KEY, PromptTokenizer


@dataclass(frozen=True)
class PromptToken:
    """One token of a prompt.

    Attributes:
        id: the token's id.
        token: its name in the vocabulary, for instance ``"Ġgreat"``.
        text: what it stands for, for instance ``" great"``; several tokens may share one character.
        kind: whose token it is.
    """

    id: int
    token: str
    text: str
    kind: PartKind


def describe_prompt(
    tokenizer: PromptTokenizer, text: str, text_pair: str | None = None, *, max_length: int | None = None
) -> list[PromptToken]:
    """Tokenise one prompt and say of each token whether it is the template's, a field's, soft, special or the slot.

    Args:
        tokenizer: a compiled tokenizer.
        text: the first text, as :meth:`PromptTemplate.render` returns it.
        text_pair: the second text, for templates that have one.
        max_length: shorten the fields as the tokenizer does, so that the prompt has at most so many tokens; None for
            the whole prompt.
    Returns:
        All tokens in order; a special token written in the template is ``special``.
    Raises:
        TemplateError: if the tokenizer holds no template.
        HfPromptingError: as calling the tokenizer does.
    Example:
        >>> [token.kind.value for token in describe_prompt(tokenizer, "Nice")]  # doctest: +SKIP
        ['soft', 'soft', 'field', 'template', 'template']
    """
    _template_of(tokenizer)
    shorten = max_length is not None
    encoding = tokenizer(text, text_pair, truncation=shorten, max_length=max_length, verbose=False).encodings[0]
    backend = tokenizer.backend_tokenizer
    special = {token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special}
    kinds: list[PartKind] = []
    fields = iter(range(2))
    for part in installed_parts(backend):
        if part.kind is PartKind.FIELD:
            kinds.extend([PartKind.FIELD] * encoding.sequence_ids.count(next(fields)))
        elif part.kind is PartKind.TEMPLATE:
            kinds.extend(PartKind.SPECIAL if token_id in special else PartKind.TEMPLATE for token_id in part.ids)
        else:
            kinds.extend([part.kind] * len(part.ids))
    return [
        PromptToken(token_id, token, backend.decode([token_id], skip_special_tokens=False), kind)
        for token_id, token, kind in zip(encoding.ids, encoding.tokens, kinds, strict=True)
    ]


def tokenization_difference(
    tokenizer: PromptTokenizer, text: str, text_pair: str | None = None
) -> TokenizationDifference | None:
    """Compare a compiled prompt with the same prompt written as one string and tokenised at once.

    Builds a second tokenizer for the comparison, so it takes a moment with a large vocabulary.

    Args:
        tokenizer: a compiled tokenizer, also one that was saved and loaded.
        text: the first text.
        text_pair: the second text, for templates that have one.
    Returns:
        None if both give the same ids, else both lists of ids.
    Raises:
        TemplateError: if the tokenizer holds no template.
    """
    template = _template_of(tokenizer)
    native = tuple(tokenizer(text, text_pair, truncation=False, verbose=False)["input_ids"])
    backend = original_backend(tokenizer.backend_tokenizer, tokenizer.init_kwargs.get(PIPELINE_KEY, {}))
    installed = installed_parts(tokenizer.backend_tokenizer)
    slot_ids = [token_id for part in installed if part.kind is PartKind.SLOT for token_id in part.ids]
    soft_names = token_names(backend, tokenizer.soft_token_ids)
    parts = prompt_parts(template, soft_names, "".join(token_names(backend, slot_ids)))
    rendered = _affix(installed[0]) + rendered_ids(backend, parts, [text, text_pair or ""]) + _affix(installed[-1])
    return None if native == rendered else TokenizationDifference(text, native, rendered)


def _affix(part: Part) -> tuple[int, ...]:
    return part.ids if part.kind is PartKind.SPECIAL else ()


def _template_of(tokenizer: PromptTokenizer) -> PromptTemplate:
    template = getattr(tokenizer, "prompt_template", None)
    if not isinstance(template, PromptTemplate):
        raise TemplateError(f"{type(tokenizer).__name__} holds no template; use one made by compile_template")
    return template

"""The README.md of an export: python that scores label words with nothing but transformers (and PEFT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_prompting.artifacts.escaping import fenced, inline

_MODELS = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}

_INTRODUCTIONS = {
    "plain": (
        "The base model with the soft tokens as rows of its input embedding. The tokenizer inserts the whole prompt; "
        "`generation_config.json` keeps the model from producing a soft token."
    ),
    "peft": (
        "A prompt-tuning adapter of PEFT. The tokenizer inserts the rest of the template. Score one text at a time, or "
        "pad on the right: PEFT puts its soft tokens before the padding."
    ),
    "embeds": (
        "The embeddings of everything that stands around the texts, as the first layer of the base model reads them: "
        "already scaled where the model scales its embeddings, so send them as `inputs_embeds` or prompt embeddings "
        "without scaling them again. `part.N` in `prompt_embeddings.safetensors` is the entry N of `layout` in "
        "`prompt.json`; the entries of kind `field` are the embeddings of the texts. The tokenizer tokenises texts "
        "alone."
    ),
}

_LOADING = {
    "plain": """model = {model}.from_pretrained(folder).eval()""",
    "peft": """base = {model}.from_pretrained(base_model)
model = PeftModel.from_pretrained(base, folder).eval()""",
    "embeds": """model = {model}.from_pretrained(base_model).eval()
parts = load_file(f"{{folder}}/prompt_embeddings.safetensors")
embed = (model.get_encoder() if model.config.is_encoder_decoder else model).get_input_embeddings()""",
}
_IMPORTS = {
    "plain": "",
    "peft": "from peft import PeftModel\n",
    "embeds": "from safetensors.torch import load_file\n",
}
_BASE = {
    "plain": "",
    "peft": 'base_model = prompt["base_model"]\n',
    "embeds": 'base_model = prompt["base_model"]\n',
}

# What goes into the model, as keyword arguments: ids, or the parts' and the texts' embeddings one behind the other.
_INPUTS = {
    "plain": """def inputs(texts):
    return {"input_ids": tokenizer(*texts, return_tensors="pt").input_ids}""",
    "embeds": """def inputs(texts):
    texts = iter(texts)
    rows = []
    for number, part in enumerate(prompt["layout"]):
        if part["kind"] == "field":
            ids = tokenizer(next(texts), add_special_tokens=False, return_tensors="pt").input_ids
            rows.append(embed(ids.long())[0])
        else:
            rows.append(parts[f"part.{number}"])
    return {"inputs_embeds": torch.cat(rows)[None]}""",
}
_INPUTS["peft"] = _INPUTS["plain"]

_SCORES = {
    "causal": """def word_score(texts, pieces):
    prompt_only, answer = inputs(texts), torch.tensor([pieces])
    if "input_ids" in prompt_only:
        whole = {"input_ids": torch.cat([prompt_only["input_ids"], answer], dim=1)}
    else:
        whole = {"inputs_embeds": torch.cat([prompt_only["inputs_embeds"], embed(answer)], dim=1)}
    return log_probability(model(**whole).logits[0, -len(pieces) - 1 : -1], pieces)""",
    "seq2seq": """def word_score(texts, pieces):
    decoder_ids = torch.tensor([prompt["decoder_prefix_ids"] + pieces])
    logits = model(**inputs(texts), decoder_input_ids=decoder_ids).logits
    return log_probability(logits[0, -len(pieces) - 1 : -1], pieces)""",
    "masked": """def word_score(texts, pieces):
    given = inputs(texts)
    if "input_ids" in given:
        is_mask = given["input_ids"][0] == prompt["mask_token_id"]
    else:
        mask = embed(torch.tensor([prompt["mask_token_id"]]))
        is_mask = (given["inputs_embeds"][0] == mask).all(-1)
    keep = ~is_mask | (is_mask.cumsum(0) <= len(pieces))  # as many masks as the word has tokens
    logits = model(**{name: value[:, keep] for name, value in given.items()}).logits
    return log_probability(logits[0, is_mask[keep]], pieces)""",
}


def export_card(form: str, record: Mapping[str, Any]) -> str:
    """Write the README.md of an export.

    Args:
        form: "plain", "peft" or "embeds".
        record: from ``prompt_record``.
    Returns:
        Markdown with one block of python, which runs in the folder's parent as it stands.
    Example:
        >>> export_card("plain", record).splitlines()[0]  # doctest: +SKIP
        '# A prompt for org/base'
    """
    model = _MODELS[record["task"]]
    code = f"""import json
import torch
{_IMPORTS[form]}from transformers import {model}, PreTrainedTokenizerFast

folder = "PATH_OF_THIS_FOLDER"
prompt = json.load(open(f"{{folder}}/prompt.json", encoding="utf-8"))
{_BASE[form]}tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
{_LOADING[form].format(model=model)}

{_INPUTS[form]}

def log_probability(logits, pieces):
    scores = logits[:, : prompt["vocab_size"]].float().log_softmax(-1)
    return sum(scores[step, piece] for step, piece in enumerate(pieces))

@torch.inference_mode()
{_SCORES[record["task"]]}

def class_scores(*texts):
    \"\"\"Mean log-probability of each label's words.\"\"\"
    return {{
        one["label"]: torch.stack([word_score(texts, pieces) for pieces in one["ids"]]).mean().item()
        for one in prompt["labels"]
    }}

print(class_scores({", ".join(['"…"'] * _num_texts(record))}))"""
    note = "" if record["aggregation"] == "mean" else f"\n\nThis prompt was tuned with `{record['aggregation']}`."
    return (
        "\n\n".join(
            [
                f"# A prompt for {inline(str(record['base_model']))}",
                f"{_INTRODUCTIONS[form]} Made with hf\\_prompting, and usable without it.{note}",
                "Load the tokenizer by the class below: `AutoTokenizer` rebuilds those of some families, such as "
                "Qwen2, and then drops the template.",
                fenced(code, "python"),
                "## Prompt",
                fenced(str(record["template"])),
                "\n".join(
                    ["| label | label words |", "|---|---|"]
                    + [
                        f"| {inline(one['label'])} | {', '.join(inline(word) for word in one['words'])} |"
                        for one in record["labels"]
                    ]
                ),
            ]
        )
        + "\n"
    )


def _num_texts(record: Mapping[str, Any]) -> int:
    return sum(part["kind"] == "field" for part in record["layout"])

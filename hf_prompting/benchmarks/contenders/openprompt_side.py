"""OpenPrompt in an environment of its own: its wrapper, and a training step. Imports nothing of this library.

OpenPrompt 1.0.1 needs slow tokenizers and a transformers of its time, which read neither today's config.json nor
today's tokenizer.json; both are translated here. Weights, rows and words are the same; digits are split as GPT-2 does.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

_CONFIG = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def wrapper(settings):
    """Wrap and tokenise rows, as ``PromptDataLoader`` does for each of them."""
    from openprompt import PromptDataLoader
    from openprompt.plms.lm import LMTokenizerWrapper
    from openprompt.prompts import ManualTemplate

    tokenizer = _tokenizer(settings)
    template = ManualTemplate(tokenizer=tokenizer, text=_text(settings))
    examples = _examples(settings, settings["num_texts"])

    def one_round():
        loader = PromptDataLoader(examples, template, **_loading(settings, tokenizer, LMTokenizerWrapper))
        return {"num_rows": len(loader.tensor_dataset), **_versions()}

    return one_round


def training(settings):
    """SoftTemplate and ManualVerbalizer over the frozen model, one AdamW step a batch."""
    import torch
    from openprompt import PromptDataLoader, PromptForClassification
    from openprompt.plms.lm import LMTokenizerWrapper
    from openprompt.prompts import ManualVerbalizer, SoftTemplate

    tokenizer, base = _tokenizer(settings), _base(settings)
    template = SoftTemplate(
        model=base, tokenizer=tokenizer, num_tokens=settings["num_soft_tokens"], text=_text(settings)
    )
    words = settings["words"]
    verbalizer = ManualVerbalizer(tokenizer, classes=list(words), label_words=words, prefix=" ")
    loader = PromptDataLoader(
        _examples(settings, settings["num_rows"]), template, **_loading(settings, tokenizer, LMTokenizerWrapper)
    )
    model = PromptForClassification(plm=base, template=template, verbalizer=verbalizer, freeze_plm=True).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings["learning_rate"])
    # Not a list to cycle through: OpenPrompt takes the ids out of a batch that it has read.
    endless = itertools.chain.from_iterable(itertools.repeat(loader))

    def some_steps():
        losses = []
        for _ in range(settings["num_steps"]):
            batch = next(endless)
            loss = torch.nn.functional.cross_entropy(model(batch), batch["label"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return {"class_losses": losses, **_versions()}

    return some_steps


def _versions():
    from importlib.metadata import version

    return {name: version(name) for name in ("openprompt", "transformers", "tokenizers", "torch")}


def _text(settings):
    before, after = settings["text"].split("{text}")
    return f'{before}{{"placeholder":"text_a"}}{after} {{"mask"}}'


def _loading(settings, tokenizer, wrapper_class):
    return {
        "tokenizer": tokenizer,
        "tokenizer_wrapper_class": wrapper_class,
        "max_seq_length": settings["max_length"],
        "batch_size": settings["batch_size"],
        "decoder_max_length": 3,
        "teacher_forcing": False,
        "predict_eos_token": False,
        "truncate_method": "tail",
    }


def _examples(settings, count):
    import torch
    from openprompt.data_utils import InputExample

    read = [json.loads(line) for line in Path(settings["data"]).read_text(encoding="utf-8").splitlines()]
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(0)).tolist()
    labels = list(settings["words"])
    rows = itertools.islice(itertools.cycle([read[i] for i in order]), count)
    return [InputExample(guid=i, text_a=row["text"], label=labels.index(row["label"])) for i, row in enumerate(rows)]


def _tokenizer(settings):
    from transformers import GPT2Tokenizer

    model = json.loads((Path(settings["model"]) / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    folder = Path(tempfile.mkdtemp())
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    names = {"unk_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), bos_token="<|im_start|>", **names)


def _base(settings):
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(settings["model"])
    saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    theta = (saved.get("rope_parameters") or saved).get("rope_theta", 10000.0)
    config = LlamaConfig(**{name: saved[name] for name in _CONFIG if name in saved}, rope_theta=theta)
    base = LlamaForCausalLM(config)
    left = base.load_state_dict(load_file(str(folder / "model.safetensors")), strict=False)
    if set(left.missing_keys) - {"lm_head.weight"}:
        raise ValueError(f"this model is no Llama: {left.missing_keys[:3]}")
    base.tie_weights()
    return base

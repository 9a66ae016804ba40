"""One of two processes of ``test_parallel.py``: loads a folder split over both and compares with the whole model."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSeq2SeqLM
from transformers.distributed import DistributedConfig

import hf_prompting  # registers the family

HOW = {"tensor": DistributedConfig(tp_size=2, tp_plan="auto"), "fsdp": DistributedConfig(fsdp_size=2)}

folder, how = sys.argv[1:]
assert hf_prompting.__version__
split = AutoModelForSeq2SeqLM.from_pretrained(folder, distributed_config=HOW[how])
whole = AutoModelForSeq2SeqLM.from_pretrained(folder)
ids = torch.arange(3, 17).view(2, 7)
output = split(input_ids=ids, labels=ids)
torch.testing.assert_close(output.logits, whole(input_ids=ids, labels=ids).logits, atol=1e-4, rtol=1e-4)
for model in (split, whole):
    model.train()(input_ids=ids, labels=ids).loss.backward()
    model.eval()
expected = dict(whole.named_parameters())
for name, parameter in split.named_parameters():
    gradient = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
    torch.testing.assert_close(
        gradient, expected[name].grad, atol=1e-4, rtol=1e-3, msg=lambda text, name=name: name + text
    )
assert type(split.model.encoder.layers[0].self_attn.q_proj.weight.data).__name__ == "DTensor"
if how == "tensor":
    texts = [model.generate(ids, max_new_tokens=5).tolist() for model in (split, whole)]
    assert texts[0] == texts[1]
print("equal", flush=True)
dist.barrier()
dist.destroy_process_group()

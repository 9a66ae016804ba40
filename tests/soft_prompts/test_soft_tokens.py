"""Soft tokens through ``get_peft_model`` against a model whose vocabulary was really enlarged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from soft_models import (
    ALL_FAMILIES,
    NUM_SOFT,
    SOFT_IDS,
    VOCAB_SIZE,
    inputs_for,
    logits_of,
    new_rows,
    owner,
    resized_model,
    soft_model,
    table,
)
from tiny_models import CAUSAL, SEQ2SEQ, tiny_model

from hf_prompting.soft_prompts.layer import SoftTokenEmbedding, input_embedding_paths


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_logits_equal_those_of_a_really_resized_model(family: str) -> None:
    inputs = inputs_for(family)
    got, expected = logits_of(soft_model(family), inputs), logits_of(resized_model(family), inputs)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    ordinary = logits_of(
        tiny_model(family),
        {name: ids.clamp(max=VOCAB_SIZE - 1) for name, ids in inputs.items()},
    )
    assert not torch.allclose(got, ordinary, atol=1e-2)


@pytest.mark.parametrize("family", ALL_FAMILIES)
@torch.no_grad()
def test_embeddings_equal_those_of_a_really_resized_model_bit_by_bit(family: str) -> None:
    ids = inputs_for(family)["input_ids"]
    tuned, resized = soft_model(family).base_model.model, resized_model(family)
    embed = [m.get_encoder().embed_tokens if family in SEQ2SEQ else m.get_input_embeddings() for m in (tuned, resized)]
    assert torch.equal(embed[0](ids), embed[1](ids))


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_ordinary_ids_may_be_overlaid(family: str) -> None:
    ids = (40, 7, 299, 100)
    inputs = inputs_for(family, ids=ids)
    model = soft_model(family, token_ids=list(ids))
    expected = resized_model(family, ids=ids)
    # The reference's tied head saw the overlay too; the tuned model's must not.
    old_head = tiny_model(family).get_output_embeddings().weight.detach().clone()
    expected.get_output_embeddings().weight = torch.nn.Parameter(old_head)
    torch.testing.assert_close(logits_of(model, inputs), logits_of(expected, inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_gradient_reaches_only_the_rows_and_the_base_stays_as_it_was(family: str) -> None:
    model, untouched = soft_model(family).train(), tiny_model(family)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        name for name, p in model.named_parameters() if p is table(model).rows
    ]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = table(model).rows.detach().clone()
    model(**inputs_for(family)).logits.float().square().mean().backward()
    assert all(p.grad is None for p in model.parameters() if p is not table(model).rows)
    assert (table(model).rows.grad.abs().sum(1) > 0).all()
    optimizer.step()
    assert not torch.equal(before, table(model).rows)
    restored = model.unload()
    for (name, mine), (_, theirs) in zip(restored.state_dict().items(), untouched.state_dict().items(), strict=True):
        if name != "final_logits_bias":
            assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_the_gradient_of_the_rows_equals_that_of_the_resized_embedding(family: str) -> None:
    model, resized = soft_model(family), resized_model(family)
    inputs = inputs_for(family)
    for each in (model, resized):
        each(**inputs).logits[..., :VOCAB_SIZE].float().log_softmax(-1)[..., 5].mean().backward()
    gradient = resized.get_input_embeddings().weight.grad[list(SOFT_IDS)]
    rounding = 1e-4 * float(gradient.abs().max())
    torch.testing.assert_close(table(model).rows.grad, gradient, atol=rounding, rtol=1e-3)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_saved_folder_holds_the_rows_alone(family: str, tmp_path: Path) -> None:
    base = tiny_model(family)
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model = soft_model(family, base)
    model.save_pretrained(tmp_path / "adapter")
    state = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert [tensor.shape for tensor in state.values()] == [(NUM_SOFT, 32)]
    assert torch.equal(next(iter(state.values())), new_rows())
    assert sum(path.stat().st_size for path in (tmp_path / "adapter").iterdir()) < 10_000


def test_every_embedding_that_shares_the_input_weight_is_wrapped_and_one_owns_the_table() -> None:
    model = soft_model("t5")
    layers = [module for module in model.modules() if isinstance(module, SoftTokenEmbedding)]
    assert len(layers) == 3
    assert [layer.is_owner for layer in layers].count(True) == 1
    assert len({id(layer.tables) for layer in layers}) == 1
    assert sorted(input_embedding_paths(tiny_model("bart"))) == sorted(
        ["model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens"]
    )


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_one_embedding_module_under_several_names_is_wrapped_under_all(family: str) -> None:
    base = tiny_model(family)
    base.resize_token_embeddings(VOCAB_SIZE + 8, mean_resizing=False)  # now `shared` itself stands in both stacks
    assert len({id(m) for m in base.modules() if isinstance(m, torch.nn.Embedding) and m.num_embeddings > 300}) == 1
    inputs = inputs_for(family)
    model = soft_model(family, base, token_ids=list(SOFT_IDS))
    expected = logits_of(resized_model(family), inputs)
    torch.testing.assert_close(logits_of(model, inputs), expected, atol=1e-5, rtol=1e-5)
    assert owner(model).tables.keys() == {"default"}
    restored = model.unload()
    assert restored.get_input_embeddings() is restored.get_encoder().embed_tokens
    assert restored.get_input_embeddings() is restored.get_decoder().embed_tokens


@pytest.mark.parametrize("family", [*CAUSAL, "modernbert", *SEQ2SEQ])  # BERT's table of ties knows no wrapped names
def test_tying_the_weights_again_changes_nothing(family: str) -> None:
    model, expected = soft_model(family), logits_of(soft_model(family), inputs_for(family))
    names = list(model.state_dict())
    model.base_model.model.tie_weights()  # Trainer and accelerate call it after loading
    assert list(model.state_dict()) == names
    assert torch.equal(logits_of(model, inputs_for(family)), expected)

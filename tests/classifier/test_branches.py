"""Branches of label words over one copy of the encoder's states: the same scores and gradients as over copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_answers import MULTI, PAD, PREFIX, SINGLE, batch, rows
from tiny_models import tiny_model
from torch import Tensor, nn

from hf_prompting import Seq2SeqTransformerConfig, Seq2SeqTransformerForConditionalGeneration
from hf_prompting.classifier.answers import AnswerSlot, WordScorer
from hf_prompting.classifier.branches import Branches
from hf_prompting.verbalizers import LabelTrie

SIZES = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
LAYERS = {"num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.0}
PRESETS: dict[str, Any] = {
    "modern": Seq2SeqTransformerConfig,
    "grouped heads": lambda **sizes: Seq2SeqTransformerConfig(num_key_value_heads=2, **sizes),
    "vanilla": Seq2SeqTransformerConfig.vanilla,
    "t5 variant": Seq2SeqTransformerConfig.t5,
}
FAMILIES = ("t5", "bart", *PRESETS)
WORDS = {"single": SINGLE, "two": ((11,), (12, 13)), "multi": MULTI}


def model_of(family: str) -> Any:
    if family not in PRESETS:
        return tiny_model(family)
    torch.manual_seed(0)
    model = Seq2SeqTransformerForConditionalGeneration(PRESETS[family](**SIZES, **LAYERS)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0 if parameter.ndim > 1 else 1.0)
    return model


def scorer(model: Any, words: Any = MULTI, **kwargs: Any) -> WordScorer:
    return WordScorer(model, AnswerSlot(words, PAD, decoder_prefix=PREFIX), **kwargs)


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_changes_neither_scores_nor_gradients(family: str, words: str) -> None:
    """In float64, so that only a real difference shows."""
    model = model_of(family).double()
    results = []
    for share in (False, True):
        score = scorer(model, WORDS[words], share_encoder=share)
        assert words != "multi" or score.sharing_is_exact(torch.device("cpu"))
        scores = score.seq2seq(*batch(rows("seq2seq", 0), "left", extra=2))
        model.zero_grad()
        scores.log_softmax(-1)[:, 0].sum().backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        results.append((scores.detach().log_softmax(-1), gradients))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-8, rtol=1e-8)
    for shared, copied in zip(results[1][1], results[0][1], strict=True):
        torch.testing.assert_close(shared, copied, atol=1e-8, rtol=1e-6)


def rows_projected(model: Any, score: WordScorer) -> int:
    """Count the rows whose keys a cross-attention projects."""
    seen: list[int] = []
    layer = model.model.decoder.layers[0].encoder_attn.k_proj
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    score.seq2seq(*batch(rows("seq2seq", 0), "left"))
    handle.remove()
    return seen[-1]


def test_the_encoders_states_are_projected_once_for_all_branches_of_a_row() -> None:
    model = tiny_model("bart")
    num_rows, num_branches = len(rows("seq2seq", 0)), len(LabelTrie.build(MULTI).branches())
    assert num_branches > 1
    assert rows_projected(model, scorer(model)) == num_rows
    assert rows_projected(model, scorer(model, share_encoder=False)) == num_rows * num_branches


def test_states_are_copied_where_sharing_would_not_be_exact() -> None:
    eager = tiny_model("bart")
    eager.set_attn_implementation("eager")
    assert not scorer(eager).sharing_is_exact(torch.device("cpu"))
    checkpointing = tiny_model("bart").train()
    checkpointing.activation_checkpointing_enable()
    num_rows = len(rows("seq2seq", 0))
    assert rows_projected(checkpointing, scorer(checkpointing)) > num_rows
    own = tiny_model("bart")
    attention = own.model.decoder.layers[1].encoder_attn
    plain_forward = attention.forward

    def gated_by_the_first_token(states: Tensor, key_value_states: Tensor, **kwargs: Any) -> Any:
        return plain_forward(states * key_value_states[:, :1], key_value_states, **kwargs)

    attention.forward = gated_by_the_first_token
    assert rows_projected(own, scorer(own)) > num_rows


def test_the_attention_of_the_decoder_is_left_as_it_was() -> None:
    for family in FAMILIES:
        model = model_of(family).train()
        scorer(model).seq2seq(*batch(rows("seq2seq", 0), "left"))
        assert model.config._attn_implementation == "sdpa"
        assert model.get_decoder().config._attn_implementation == "sdpa"
        assert all(module.training for module in model.modules() if isinstance(module, nn.Module))


def test_branches_by_hand() -> None:
    """Words 30 31 32 and 30 33 34 and 35: nodes are 30, then 30 31 and 30 33."""
    branches = Branches.of_trie(LabelTrie.build([(30, 31, 32), (30, 33, 34), (35,)]), pad_id=0, device="cpu")
    assert branches.ids_NL.tolist() == [[30, 31], [30, 33]]
    assert branches.depth_K.tolist() == [0, 1, 2, 2]
    assert branches.branch_K.tolist()[2:] == [0, 1]
    # two rows of two branches, behind a prefix of two tokens: a state says row, branch and column
    states = torch.tensor([[[100 * row + 10 * branch + t] for t in range(4)] for row in (1, 2) for branch in (0, 1)])
    picked = branches.nodes(states)[..., 0].tolist()
    assert [[value % 10 for value in row] for row in picked] == [[1, 2, 3, 3], [1, 2, 3, 3]]
    assert [row[2:] for row in picked] == [[103, 113], [203, 213]]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_bfloat16_branches_come_out_alike(family: str) -> None:
    model = model_of(family).to(torch.bfloat16)
    found = []
    for share in (False, True):
        score = scorer(model, share_encoder=share)
        found.append(score.seq2seq(*batch(rows("seq2seq", 0), "left")).softmax(-1))
        assert score.sharing_is_exact(torch.device("cpu"))
    torch.testing.assert_close(found[1], found[0], atol=0.1, rtol=0)

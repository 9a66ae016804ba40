"""Losses and heads, by hand; and every bad input is one clear error or a loss of 0, never NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_seq2seq import PRESETS, some_ids, tiny_config, tiny_model

from hf_prompting.errors import Seq2SeqInputError
from hf_prompting.seq2seq import (
    Seq2SeqTransformerForQuestionAnswering,
    Seq2SeqTransformerForSequenceClassification,
    Seq2SeqTransformerForTokenClassification,
    Seq2SeqTransformerModel,
)
from hf_prompting.seq2seq.loss import sequence_loss, span_loss, token_loss

HEADS = (
    Seq2SeqTransformerForSequenceClassification,
    Seq2SeqTransformerForTokenClassification,
    Seq2SeqTransformerForQuestionAnswering,
)


def test_token_loss_is_the_mean_over_labels_that_count() -> None:
    logits = torch.tensor([[[0.0, 0.0], [math.log(3.0), 0.0], [9.0, 0.0]]])
    labels = torch.tensor([[1, 0, -100]])
    expected = (math.log(2) - math.log(0.75)) / 2
    torch.testing.assert_close(token_loss(logits, labels), torch.tensor(expected))
    torch.testing.assert_close(token_loss(logits, labels, num_items_in_batch=8), torch.tensor(expected * 2 / 8))


def test_split_batches_with_num_items_sum_to_the_whole_loss() -> None:
    model, ids, labels = tiny_model("modern"), some_ids(4), some_ids(4, 5, seed=2)
    labels[0, 2:] = -100
    whole = model(ids, labels=labels).loss
    num_items = (labels != -100).sum()
    parts = [model(ids[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=num_items).loss for i in range(4)]
    torch.testing.assert_close(sum(parts), whole)


def test_sequence_loss_follows_the_kind_of_problem() -> None:
    config = tiny_config("modern")
    scores = torch.tensor([[2.0, 0.0]])
    torch.testing.assert_close(sequence_loss(scores, torch.tensor([0]), config), torch.tensor(math.log1p(math.exp(-2))))
    yes_no = sequence_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), config)
    torch.testing.assert_close(yes_no, torch.tensor(math.log(2)))
    config.problem_type = "regression"
    torch.testing.assert_close(sequence_loss(scores, torch.tensor([[0.0, 0.0]]), config), torch.tensor(2.0))


def test_span_loss_ignores_positions_outside_the_text() -> None:
    start, end = torch.zeros(2, 4), torch.zeros(2, 4)
    inside, outside = torch.tensor([1, 7]), torch.tensor([[2], [-1]])
    torch.testing.assert_close(span_loss(start, end, inside, outside), torch.tensor(math.log(4)))


def test_the_classifier_reads_the_last_decoder_token_that_is_not_padding() -> None:
    model = tiny_model("modern", Seq2SeqTransformerForSequenceClassification, num_labels=3)
    ids, decoder_ids = some_ids(), some_ids(2, 4, seed=2)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = model(ids, decoder_input_ids=decoder_ids, decoder_attention_mask=mask).logits
    expected = model(ids[1:], decoder_input_ids=decoder_ids[1:, :2]).logits
    torch.testing.assert_close(found[1:], expected)
    start = torch.full((2, 1), model.config.decoder_start_token_id)
    torch.testing.assert_close(model(ids).logits, model(ids, decoder_input_ids=start).logits)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__.removeprefix("Seq2SeqTransformer"))
@pytest.mark.parametrize("preset", PRESETS)
def test_embeddings_do_as_well_as_ids_without_decoder_ids(preset: str, head: Any) -> None:
    model, ids = tiny_model(preset, head), some_ids()
    embedded = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embedded)[0], model(ids)[0])
    model = tiny_model(preset)
    embedded = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embedded).logits, model(ids).logits)


def test_logits_to_keep_scores_the_last_positions_only() -> None:
    model, ids = tiny_model("modern"), some_ids()
    every = model(ids, labels=ids)
    torch.testing.assert_close(model(ids, labels=ids, logits_to_keep=2).logits, every.logits[:, -2:])
    kept = model(ids, labels=ids, logits_to_keep=torch.tensor([0, 3]))
    torch.testing.assert_close(kept.logits, every.logits[:, [0, 3]])
    torch.testing.assert_close(kept.loss, token_loss(every.logits[:, [0, 3]], ids[:, [0, 3]]))


def test_labels_become_decoder_inputs_shifted_right() -> None:
    model = tiny_model("modern", decoder_start_token_id=5)
    made = model.prepare_decoder_input_ids_from_labels(torch.tensor([[7, 8, -100, -100]]))
    assert made.tolist() == [[5, 7, 8, 0]]


@pytest.mark.parametrize("preset", PRESETS)
def test_ids_outside_the_vocabulary_are_named(preset: str) -> None:
    model = tiny_model(preset)
    for wrong in (99, -1):
        ids = some_ids()
        ids[0, 2] = wrong
        with pytest.raises(Seq2SeqInputError, match=rf"token id {wrong} is outside the vocabulary; allowed: 0 to 98"):
            model(ids, labels=some_ids())
        with pytest.raises(Seq2SeqInputError, match=rf"token id {wrong} is outside"):
            model(some_ids(), decoder_input_ids=ids)


def test_labels_outside_the_vocabulary_are_named() -> None:
    model, ids = tiny_model("modern"), some_ids()
    with pytest.raises(Seq2SeqInputError, match="label 99 is outside the classes; allowed: 0 to 98"):
        model(ids, decoder_input_ids=ids, labels=torch.full_like(ids, 99))


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
@pytest.mark.parametrize("preset", PRESETS)
def test_an_empty_batch_is_an_error(preset: str, shape: tuple[int, int]) -> None:
    with pytest.raises(Seq2SeqInputError, match=r"the batch is empty: shape \("):
        tiny_model(preset)(torch.zeros(shape, dtype=torch.long), decoder_input_ids=some_ids())


def test_nothing_to_read_is_an_error() -> None:
    model = tiny_model("modern")
    with pytest.raises(Seq2SeqInputError, match="the decoder has nothing to read"):
        model()
    with pytest.raises(Seq2SeqInputError, match="either ids or embeddings"):
        model(decoder_input_ids=some_ids())
    with pytest.raises(Seq2SeqInputError, match="decoder_start_token_id"):
        tiny_model("modern", decoder_start_token_id=None)(some_ids(), labels=some_ids())
    with pytest.raises(Seq2SeqInputError, match="nothing to classify"):
        tiny_model("modern", Seq2SeqTransformerForSequenceClassification)()


def test_a_text_beyond_the_sinusoids_is_an_error_on_both_sides_and_while_generating() -> None:
    model, long = tiny_model("vanilla"), some_ids(1, 65)
    message = "has 65 tokens; allowed: up to max_position_embeddings 64"
    with pytest.raises(Seq2SeqInputError, match=message):
        model(long, labels=some_ids(1))
    with pytest.raises(Seq2SeqInputError, match=message):
        model(some_ids(1), labels=long)
    with pytest.raises(Seq2SeqInputError, match=message):
        model.generate(some_ids(1), min_new_tokens=70, max_new_tokens=70)


@pytest.mark.parametrize("preset", ["modern", "t5"])
def test_other_positions_have_no_end(preset: str) -> None:
    assert tiny_model(preset)(some_ids(1, 100), labels=some_ids(1, 90)).loss.isfinite()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_row_of_padding_alone_is_finite_and_leaves_the_others_alone(preset: str, implementation: str) -> None:
    model, ids, labels = tiny_model(preset), some_ids(), some_ids(2, 4, seed=2)
    model.set_attn_implementation(implementation)
    mask = torch.ones_like(ids)
    mask[1] = 0
    output = model(ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    assert output.logits.isfinite().all() and output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    torch.testing.assert_close(output.logits[:1], model(ids[:1], labels=labels[:1]).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_ignored_labels_give_a_loss_of_zero(preset: str) -> None:
    ids = some_ids()
    ignored = torch.full_like(ids, -100)
    model = tiny_model(preset)
    loss = model(ids, labels=ignored).loss
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    tokens = tiny_model(preset, Seq2SeqTransformerForTokenClassification)
    assert tokens(ids, labels=ignored).loss.item() == 0
    texts = tiny_model(preset, Seq2SeqTransformerForSequenceClassification)
    assert texts(ids, labels=ignored[:, 0]).loss.item() == 0
    answers = tiny_model(preset, Seq2SeqTransformerForQuestionAnswering)
    outside = torch.tensor([50, 60])
    assert answers(ids, start_positions=outside, end_positions=outside).loss.item() == 0


def test_encoder_outputs_may_be_a_tuple() -> None:
    model, ids = tiny_model("modern", Seq2SeqTransformerModel), some_ids()
    expected = model(ids).last_hidden_state
    states = model.encoder(ids).last_hidden_state
    torch.testing.assert_close(
        model(
            encoder_outputs=(states,), decoder_input_ids=model.config.decoder_start_token_id + ids * 0
        ).encoder_last_hidden_state,
        states,
    )
    assert model(ids, encoder_outputs=(states,), return_dict=False)[0].equal(expected)

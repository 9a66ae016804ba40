"""transformers' common model tests over all classes and presets, and over BART for comparison.

Run by ``test_conformance.py`` in a process of its own, where the unpacked tests are on the path.
"""

from __future__ import annotations

import unittest
from functools import partial
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForQuestionAnswering,
    BartForSequenceClassification,
    BartModel,
)
from transformers.models.auto import modeling_auto
from transformers_tests.generation.test_utils import GenerationTesterMixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor
from transformers_tests.test_training_mixin import TrainingTesterMixin

import hf_prompting
from hf_prompting import Seq2SeqTransformerConfig

NAME = Seq2SeqTransformerConfig.model_type
# The tests choose labels by these tables of class names, where only transformers' own models stand.
CLASSES_OF_TABLE = {
    "MODEL_MAPPING_NAMES": ("Model", "EncoderModel"),
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": ("ForConditionalGeneration",),
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": ("ForSequenceClassification",),
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": ("ForTokenClassification",),
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": ("ForQuestionAnswering",),
}
for table, suffixes in CLASSES_OF_TABLE.items():
    for suffix in suffixes:
        getattr(modeling_auto, table)[f"{NAME}_{suffix}"] = f"Seq2SeqTransformer{suffix}"

BART_SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 80,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": None,
}
OUR_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 80,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "decoder_start_token_id": 3,
}


class TinyInputs:
    """Makes the tiny configuration and batch that the mixins ask for."""

    def __init__(self, parent: Any, make_config: Any, sizes: dict[str, Any], *, is_encoder_decoder: bool) -> None:
        self.parent = parent
        self.make_config, self.sizes = make_config, sizes
        self.is_encoder_decoder = is_encoder_decoder
        self.batch_size, self.seq_length = 13, 7
        self.encoder_seq_length = self.decoder_seq_length = self.key_length = self.seq_length
        self.hidden_size, self.num_hidden_layers, self.num_attention_heads = 32, 2, 4
        self.vocab_size, self.is_training = 99, True

    def get_config(self) -> Any:
        extra = {} if self.is_encoder_decoder else {"is_encoder_decoder": False}
        return self.make_config(vocab_size=self.vocab_size, **{**self.sizes, **extra})

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        ids = [ids_tensor([self.batch_size, self.seq_length], self.vocab_size).clamp(min=4) for _ in range(2)]
        ids[0][:, -1] = 2  # BART's classifier reads the end token
        inputs = {"input_ids": ids[0], "attention_mask": torch.ones_like(ids[0])}
        if self.is_encoder_decoder:
            inputs |= {"decoder_input_ids": ids[1], "decoder_attention_mask": torch.ones_like(ids[1])}
        return self.get_config(), inputs


class CommonTests(ModelTesterMixin, TrainingTesterMixin):
    """Settings that all the suites below share."""

    make_config: Any = None
    sizes = OUR_SIZES
    is_encoder_decoder = True
    test_can_init_all_missing_weights_before_2023 = True  # ours is new, BART's is tested where it passes
    model_tester = None
    training_overfit_learning_rate = 3e-3  # the batch is learned in fewer steps than the mixin's 300 at its 1e-3

    def setUp(self) -> None:
        make = type(self).make_config
        self.model_tester = TinyInputs(self, make, self.sizes, is_encoder_decoder=self.is_encoder_decoder)
        self.config_tester = ConfigTester(self, config_class=Seq2SeqTransformerConfig)

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def _get_trainable_model_class(self) -> Any:
        names = ("ForConditionalGeneration", "ForTokenClassification")
        return next(one for one in self.all_model_classes if one.__name__.endswith(names))

    def _create_text_training_batch(self, batch_size: int, seq_length: int, vocab_size: int) -> dict[str, torch.Tensor]:
        """The text begins with the decoder's start id; the encoder sees that one token, as it does in generation."""
        batch: dict[str, torch.Tensor] = super()._create_text_training_batch(batch_size, seq_length, vocab_size)
        if not self.is_encoder_decoder:  # two classes of tokens
            return {"input_ids": batch["input_ids"], "labels": batch["labels"] % 2}
        tokens = batch["input_ids"] + 2  # 3 is the start id
        mask = torch.zeros_like(tokens)
        mask[:, 0] = 1
        labels = tokens.roll(-1, dims=1)
        labels[:, -1] = -100
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}

    def _needs_rotary(self) -> None:
        if self.model_tester.get_config().to_dict().get("position_type", "rotary") != "rotary":
            self.skipTest("this preset has no rotary positions")

    def test_model_rope_scaling_frequencies(self) -> None:
        self._needs_rotary()
        super().test_model_rope_scaling_frequencies()

    def test_model_rope_with_partial_rotation(self) -> None:
        self._needs_rotary()
        super().test_model_rope_with_partial_rotation()


def _of_rotary_only(name: str) -> Any:
    def test(self: Any) -> None:
        self._needs_rotary()
        getattr(ModelTesterMixin, name)(self)

    return test


for _name in dir(ModelTesterMixin):  # one test per kind of scaling
    if _name.startswith("test_model_rope_scaling_from_config_"):
        setattr(CommonTests, _name, _of_rotary_only(_name))

BOTH_STACKS = (
    hf_prompting.Seq2SeqTransformerModel,
    hf_prompting.Seq2SeqTransformerForConditionalGeneration,
    hf_prompting.Seq2SeqTransformerForSequenceClassification,
    hf_prompting.Seq2SeqTransformerForQuestionAnswering,
)
ENCODER_ALONE = (
    hf_prompting.Seq2SeqTransformerEncoderModel,
    hf_prompting.Seq2SeqTransformerForTokenClassification,
)


class ModernTest(CommonTests, GenerationTesterMixin, unittest.TestCase):
    make_config = staticmethod(Seq2SeqTransformerConfig)
    all_model_classes = BOTH_STACKS


class ModernGroupedHeadsTest(ModernTest):
    sizes = {**OUR_SIZES, "num_key_value_heads": 2}  # noqa: RUF012


class LearnedPositionsTest(ModernTest):
    make_config = staticmethod(partial(Seq2SeqTransformerConfig, position_type="learned"))


class VanillaTest(CommonTests, GenerationTesterMixin, unittest.TestCase):
    make_config = staticmethod(Seq2SeqTransformerConfig.vanilla)
    all_model_classes = BOTH_STACKS


class T5Test(CommonTests, GenerationTesterMixin, unittest.TestCase):
    make_config = staticmethod(Seq2SeqTransformerConfig.t5)
    all_model_classes = BOTH_STACKS


class ModernEncoderTest(CommonTests, unittest.TestCase):
    make_config = staticmethod(Seq2SeqTransformerConfig)
    all_model_classes = ENCODER_ALONE
    is_encoder_decoder = False


class VanillaEncoderTest(CommonTests, unittest.TestCase):
    make_config = staticmethod(Seq2SeqTransformerConfig.vanilla)
    all_model_classes = ENCODER_ALONE
    is_encoder_decoder = False


class T5EncoderTest(CommonTests, unittest.TestCase):
    make_config = staticmethod(Seq2SeqTransformerConfig.t5)
    all_model_classes = ENCODER_ALONE
    is_encoder_decoder = False


class BartTest(CommonTests, GenerationTesterMixin, unittest.TestCase):
    """The peer: what it fails here says how far the harness itself is from transformers' repository."""

    make_config = staticmethod(BartConfig)
    sizes = BART_SIZES
    all_model_classes = (
        BartModel,
        BartForConditionalGeneration,
        BartForSequenceClassification,
        BartForQuestionAnswering,
    )

    def setUp(self) -> None:
        super().setUp()
        self.config_tester = ConfigTester(self, config_class=BartConfig)

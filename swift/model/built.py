"""Classifiers for architectures that transformers has none for: the family's base model and a linear layer `score` on top.

As transformers' own generic classes, for base models of every kind: such that know no attention, no cache, no position ids.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.modeling_layers import GenericForSequenceClassification, GenericForTokenClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast, TokenClassifierOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_MAPPING,
)

from swift.core.heads import SEQUENCE, TOKEN


@lru_cache
def built_class(head: str, config_class: type) -> type:
    """The classifier with this head (SEQUENCE or TOKEN) for a configuration class; its checkpoints load again through `load_model`."""
    base = MODEL_MAPPING[config_class]
    base = base[0] if isinstance(base, (list, tuple)) else base
    family = next(cls for cls in base.__mro__ if PreTrainedModel in cls.__bases__)
    mixin, suffix = {SEQUENCE: (_Sequence, 'ForSequenceClassification'), TOKEN: (_Token, 'ForTokenClassification')}[head]
    facts = {
        'base_model_prefix': family.base_model_prefix or 'model',
        'config_class': config_class,
        '__module__': base.__module__,  # only classes of its own modules get transformers' renaming of a family's stored weights
        '__doc__': f'{base.__name__} with a linear classification head.',
    }
    name = base.__name__.removesuffix('Model') + suffix
    _rename_alike(name, config_class)
    return type(name, (mixin, family), facts)


def _rename_alike(name: str, config_class: type) -> None:
    """Stored weights are renamed for the class `name` as for the one that generates, where that has renamings of its own (Qwen2-VL)."""
    for mapping in (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING):
        if config_class not in mapping:
            continue
        generates = mapping[config_class]
        generates = generates[0] if isinstance(generates, (list, tuple)) else generates
        renamings = get_checkpoint_conversion_mapping(generates.__name__)
        if renamings is not None and get_checkpoint_conversion_mapping(name) is None:
            register_checkpoint_conversion_mapping(name, renamings)
        return


class _Sequence(GenericForSequenceClassification):
    """One row of scores a text: those of its last token that is no padding."""

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None, labels: Tensor | None = None, use_cache: bool | None = None, **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast:  # fmt: skip
        output = _layers(self, input_ids, attention_mask=attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds,
                         use_cache=use_cache, **kwargs)  # fmt: skip
        scores = self.score(output[0])
        pad = self.config.get_text_config().pad_token_id
        last = torch.full(scores.shape[:1], scores.shape[1] - 1, device=scores.device)
        if input_ids is not None and pad is not None:
            places = torch.arange(input_ids.shape[1], device=scores.device)
            last = (places * (input_ids != pad)).argmax(-1)
        elif scores.shape[0] > 1:
            raise ValueError('several rows, and config.json has no pad_token_id to find the end of each by')
        pooled = scores[torch.arange(scores.shape[0], device=scores.device), last]
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=scores, labels=labels, pooled_logits=pooled, config=self.config)
        return SequenceClassifierOutputWithPast(loss=loss, logits=pooled, hidden_states=getattr(output, 'hidden_states', None))


class _Token(GenericForTokenClassification):
    """Scores of every token."""

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None, labels: Tensor | None = None, use_cache: bool | None = None, **kwargs: Any,
    ) -> TokenClassifierOutput:  # fmt: skip
        output = _layers(self, input_ids, attention_mask=attention_mask, position_ids=position_ids, inputs_embeds=inputs_embeds,
                         use_cache=use_cache, **kwargs)  # fmt: skip
        scores = self.score(self.dropout(output[0]))
        loss = None if labels is None else self.loss_function(scores, labels, self.config)
        return TokenClassifierOutput(loss=loss, logits=scores, hidden_states=getattr(output, 'hidden_states', None))


def _layers(model: Any, input_ids: Tensor | None, **inputs: Any) -> Any:
    """The output of the base model, given what its forward knows."""
    layers = model.base_model
    known = inspect.signature(layers.forward).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        inputs = {name: value for name, value in inputs.items() if name in known}
    inputs = {name: value for name, value in inputs.items() if value is not None}
    return layers(input_ids=input_ids, **{**inputs, 'return_dict': True}) if 'return_dict' in known else layers(input_ids=input_ids, **inputs)

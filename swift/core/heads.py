"""What a model carries on top of its layers: logits of tokens, a classification head, or nothing. Reads the module tree only."""

from __future__ import annotations

from typing import Any

LANGUAGE, SEQUENCE, TOKEN, BARE = 'language', 'sequence', 'token', 'bare'

TASK_HEADS = {'seq_cls': SEQUENCE, 'reranker': SEQUENCE, 'token_cls': TOKEN, 'embedding': BARE}
"""`--task_type` → head; every other task predicts tokens."""

_POOLS_ITSELF = frozenset({'big_bird'})
"""Architectures whose classifier reads the first token past the pooler that its layers carry."""

_SUFFIXES = {'ForSequenceClassification': SEQUENCE, 'ForTokenClassification': TOKEN}


PAD_SHIFTED = frozenset(
    'roberta xlm-roberta xlm-roberta-xl roberta-prelayernorm camembert data2vec-text ibert longformer mpnet xmod luke'.split()
)
"""Encoders that number positions from the padding token on: so many of their positions no token can have."""


def head_kind(model: Any) -> str:
    """LANGUAGE (logits over a vocabulary), SEQUENCE (one row of scores a text), TOKEN (scores of every token), or BARE (hidden
    states only). `model` is a transformers model without wrappers."""
    name = type(model).__name__
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    if name.endswith(('Model', 'Encoder')) and not name.endswith(('LMHeadModel', 'HeadsModel')):
        try:
            return BARE if model.get_output_embeddings() is None else LANGUAGE
        except (AttributeError, NotImplementedError):
            return BARE
    return LANGUAGE


def head_names(model: Any) -> list[str]:
    """Names of the modules that a classification head consists of: everything with weights beside the layers, and the pooler of
    a classifier of texts.

    [] for models without a classification head. The last name is that of the module that gives the scores.
    """
    if head_kind(model) not in (SEQUENCE, TOKEN):
        return []
    base = model.base_model
    prefix = next((name for name, child in model.named_children() if child is base), None)
    names = [name for name, child in model.named_children() if child is not base and _has_weights(child)]
    pooler = getattr(base, 'pooler', None) if model.config.model_type not in _POOLS_ITSELF else None
    if prefix is not None and head_kind(model) == SEQUENCE and pooler is not None and _has_weights(pooler):
        names.insert(0, f'{prefix}.pooler')
    return names


def unused_names(model: Any) -> list[str]:
    """Names of modules that a classifier or a model without a head carries but that what is read off it doesn't depend on: the
    pooler, but of most classifiers of texts, and heads that only their own task calls."""
    kind = head_kind(model)
    if kind == LANGUAGE:
        return []
    reads_pooler = kind == SEQUENCE and model.config.model_type not in _POOLS_ITSELF
    unused = {'contact_head'} if reads_pooler else {'contact_head', 'pooler'}
    return [name for name, child in model.named_modules() if name.count('.') < 2 and name.split('.')[-1] in unused and _has_weights(child)]


def _has_weights(module: Any) -> bool:
    return next(iter(module.parameters()), None) is not None

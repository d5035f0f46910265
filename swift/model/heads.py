"""Models with a classification head, or without any: which class, how its configuration is set, which weights may be new.

Where transformers has no classifier for an architecture that it can generate text with, one is built the way it builds its own:
the family's base model and a linear layer `score` on its hidden states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from swift.core.errors import ModelError
from swift.core.heads import PAD_SHIFTED, SEQUENCE, TASK_HEADS, TOKEN, head_names, unused_names
from swift.core.log import get_logger
from swift.model.info import ModelInfo

if TYPE_CHECKING:
    from swift.arguments.model import ModelArgs

logger = get_logger(__name__)

_SUFFIX = {SEQUENCE: 'ForSequenceClassification', TOKEN: 'ForTokenClassification'}


def wanted_head(args: ModelArgs) -> str | None:
    """SEQUENCE, TOKEN or BARE for tasks that predict no tokens; None for those that do."""
    return TASK_HEADS.get(args.task_type)


def class_for(head: str, info: ModelInfo, config: Any, args: ModelArgs) -> Any:
    """The model class with this head (SEQUENCE, TOKEN, BARE) for a configuration. Raises ModelError when there can't be one."""
    import transformers
    from transformers.models.auto import modeling_auto

    auto, mapping = {
        SEQUENCE: ('AutoModelForSequenceClassification', modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING),
        TOKEN: ('AutoModelForTokenClassification', modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING),
    }.get(head, ('AutoModel', modeling_auto.MODEL_MAPPING))
    if args.trust_remote_code and auto in (info.config.get('auto_map') or {}):
        return getattr(transformers, auto)
    if type(config) in mapping:
        found = mapping[type(config)]
        return found[0] if isinstance(found, (list, tuple)) else found
    if type(config) not in modeling_auto.MODEL_MAPPING or head not in _SUFFIX:
        raise ModelError(
            f'models of type {info.config_type!r} can not be loaded for --task_type {args.task_type}: transformers '
            f'{transformers.__version__} has no base model of that type;',
            'check the model, or pass --trust_remote_code true if it brings its own code.',
        )
    if getattr(config, 'is_encoder_decoder', False):
        raise ModelError(
            f'models of type {info.config_type!r} have an encoder and a decoder, and transformers {transformers.__version__} has no '
            f'classifier for them (--task_type {args.task_type});', 'choose an encoder or a decoder.',
        )  # fmt: skip
    from swift.model.built import built_class

    return built_class(head, type(config))


def configure(head: str, config: Any, info: ModelInfo, args: ModelArgs) -> None:
    """Put the classes into a configuration: num_labels, their names, the kind of problem. Raises ModelError when they are unknown."""
    if head not in _SUFFIX:
        return
    stored = stored_labels(info, head)
    count = args.num_labels or len(args.class_names) or (len(stored) if stored else None)
    if count is None:
        raise ModelError(f'{info.model_dir} has no classification head yet;', 'say how many classes it gets: --num_labels N.')
    if args.class_names and len(args.class_names) != count:
        raise ModelError(f'--class_names has {len(args.class_names)} names for --num_labels {count};', 'give one for each.')
    if args.class_names:
        config.id2label = dict(enumerate(args.class_names))
        config.label2id = {name: number for number, name in enumerate(args.class_names)}
    elif not stored or len(stored) != count:
        config.num_labels = count
    if args.problem_type:
        config.problem_type = args.problem_type


def stored_labels(info: ModelInfo, head: str) -> list[str] | None:
    """Names of the classes of a checkpoint that has this head already, in the order of their numbers; None when it has none."""
    if not any(name.endswith(_SUFFIX[head]) for name in info.architectures):
        return None
    names = info.config.get('id2label')
    if names:
        return [names[key] for key in sorted(names, key=int)]
    return [f'LABEL_{number}' for number in range(info.config.get('num_labels') or 2)]


def named_labels(info: ModelInfo, head: str) -> list[str] | None:
    """The same, without names that say nothing but the number."""
    names = stored_labels(info, head)
    return None if names is None or all(name == f'LABEL_{number}' for number, name in enumerate(names)) else names


def finish(model: Any, tokenizer: Any) -> None:
    """The configuration as the saved model needs it: which token is padding, so that the last real one is found.

    Encoders that count positions from the padding token keep the one they were made with.
    """
    pad = tokenizer.pad_token_id
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        own = getattr(config, 'pad_token_id', None)
        if pad is not None and own != pad and (own is None or config.model_type not in PAD_SHIFTED):
            config.pad_token_id = pad


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Random numbers as they are right after seeding, so that a new head is the same whatever happened before."""
    import torch

    devices: list[int] = []
    kind = 'cuda'
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        devices = list(range(torch.accelerator.device_count())) if kind != 'mps' else []
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(torch.initial_seed())
        yield


def split_missing(model: Any, missing: list[str]) -> tuple[list[str], list[str]]:
    """(missing weights of the head, which may be new; others that are missing)."""
    free = tuple(f'{name}.' for name in [*head_names(model), *unused_names(model)])
    new = [name for name in missing if name.startswith(free)] if free else []
    return new, [name for name in missing if name not in set(new)]


def tell_new(model: Any, new: list[str]) -> None:
    """One line: which weights are new."""
    heads = tuple(f'{name}.' for name in head_names(model))
    shapes = {name: list(value.shape) for name, value in model.named_parameters()}
    shown = [f'{name.removesuffix(".weight")} {shapes[name]}' for name in new if heads and name.startswith(heads) and len(shapes[name]) > 1]
    if shown:
        logger.info('new head: %s', ', '.join(shown))


def check_shapes(model: Any, mismatched: list[tuple], info: ModelInfo) -> None:
    """ModelError when the checkpoint has a head for another number of classes. `mismatched`: (name, stored shape, own shape)."""
    heads = tuple(f'{name}.' for name in head_names(model))
    for key, there, here in mismatched:
        if heads and key.startswith(heads):
            raise ModelError(
                f'{info.model_dir} has a head for {there[0]} classes ({key}), not {here[0]};',
                f'give --num_labels {there[0]}, or start from a model without a head.',
            )


def is_other_head(model: Any, name: str) -> bool:
    """Whether a stored weight belongs to a head for another purpose (a language model's, a pooler), which is left out in silence."""
    prefix = f'{model.base_model_prefix}.' if getattr(model, 'base_model_prefix', '') else ''
    parts = name.split('.')
    return 'pooler' in parts or 'lm_head' in parts or bool(prefix and not name.startswith(prefix)) and parts[0] in _HEADS


_HEADS = frozenset(
    'lm_head embed_out cls predictions generator_predictions discriminator_predictions lm_loss vocab_projector vocab_transform '
    'vocab_layer_norm mlm qa_outputs score classifier pre_classifier head decoder pred_layer output_projection dropout'.split()
)
"""First name parts of the heads that transformers' model classes put beside a base model."""

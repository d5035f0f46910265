"""An id or a directory → a model, its processor and the facts about both. The door of this room."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from swift.core.dist import local_rank
from swift.core.errors import ModelError, SwiftError, did_you_mean
from swift.core.heads import LANGUAGE, head_kind
from swift.core.log import get_logger
from swift.core.stand_in import came_late
from swift.model import heads, options
from swift.model.info import PROCESSOR_FILES, ModelInfo, describe, text_part
from swift.model.inner import inner_class, inner_config, key_mapping
from swift.model.registry import MODEL_MAPPING, ModelMeta, checkpoint_of, find_family
from swift.model.resolve import ModelPath, resolve_adapter, resolve_model_dir
from swift.model.tokens import add_new_tokens, ensure_pad_token, fit_embedding, tokenizer_of

if TYPE_CHECKING:
    from swift.arguments.model import ModelArgs

logger = get_logger(__name__)

_one_at_a_time = threading.Lock()
"""from_pretrained switches process-wide state (default dtype, tying, initialisation), so two threads must take turns."""


@dataclass(frozen=True)
class Loaded:
    """A model ready for the tuner or the engine. Adapters named in `info.adapters` are not on it yet."""

    model: Any
    processor: Any
    """The tokenizer, or the processor of a multimodal model."""
    tokenizer: Any
    info: ModelInfo


def find_model(args: ModelArgs) -> ModelPath:
    """Where `--model`, `--adapters` (or a checkpoint name in `--model_type`) point to, downloaded if need be."""
    hub = dict(revision=args.model_revision, use_hf=getattr(args, 'use_hf', None), token=getattr(args, 'hub_token', None))
    if args.model:
        return resolve_model_dir(args.model, args.adapters, **hub)
    if args.adapters:
        first = resolve_adapter(args.adapters[0], **{**hub, 'revision': None})
        return resolve_model_dir(first, args.adapters[1:], **hub)
    if args.model_type:
        return resolve_model_dir(checkpoint_of(args.model_type, bool(hub['use_hf'])), **hub)
    raise ModelError('no model was named;', 'pass --model with an id, a directory or a run (or try --model tiny).')


def model_info(args: ModelArgs) -> ModelInfo:
    """Facts about the model that `args` names, from config.json and weight headers; imports no torch."""
    return _info(find_model(args), args)


def _info(path: ModelPath, args: ModelArgs) -> ModelInfo:
    info = describe(path.model_dir, adapters=path.adapters)
    architecture = info.architectures[0] if info.architectures else None
    meta, model = find_family(args.model_type, path.name or path.model_dir, architecture)
    if meta is None and args.model_type and args.model_type != info.config_type:
        hint = did_you_mean(args.model_type, {*MODEL_MAPPING, info.config_type}, n=2)
        raise ModelError(f'unknown model_type {args.model_type!r};', hint or 'leave --model_type away: config.json says it.')
    facts: dict[str, Any] = {}
    if meta is not None:
        facts = dict(
            model_type=meta.model_type,
            template=meta.template_of(model),
            model_arch=meta.model_arch,
            is_multimodal=info.is_multimodal or meta.is_multimodal,
        )
    if args.max_model_len:
        facts['max_model_len'] = args.max_model_len
    return replace(info, **facts)


def load_processor(args: ModelArgs) -> Any:
    """The tokenizer (or processor) alone, with new special tokens and a pad token; weights are not touched."""
    info = model_info(args)
    processor, _, _ = _processor(info, args)
    return processor


def load_model(args: ModelArgs, *, for_training: bool = False) -> Loaded:
    """Load the model that `args` names.

    Weights that are missing, unexpected or of another shape are a ModelError, not a random initialisation. The type
    of the weights with `--torch_dtype auto` is the one of config.json; where no accelerator is, float32.
    `for_training` leaves placing the model to the trainer when the job is sharded, and turns the cache off in calls,
    not in the saved configuration. Adapters (`info.adapters`) are for `swift.tuners.load_adapter` to put on.
    """
    info = model_info(args)
    meta = MODEL_MAPPING.get(info.model_type)
    if isinstance(meta, ModelMeta) and meta.get_function is not None:
        return _load_registered(meta, info, args)
    options.check_quantiser(info.quant_method)
    processor, new_ids, old_size = _processor(info, args)
    config = build_config(info, args)
    model = _weights(info, args, config, for_training)
    tokenizer = tokenizer_of(processor)
    if heads.wanted_head(args):
        heads.finish(model, tokenizer)
    fit_embedding(model, tokenizer, new_ids, old_size)
    return Loaded(model, processor, tokenizer, replace(info, new_token_ids=new_ids, **_lengths(config, args)))


def _load_registered(meta: ModelMeta, info: ModelInfo, args: ModelArgs) -> Loaded:
    """Load by the function that the user registered for this model_type."""
    kwargs = dict(args.model_kwargs)
    kwargs['torch_dtype'] = torch_dtype(args.torch_dtype, info)
    model, processor = meta.get_function(info.model_dir, info, kwargs, True, model_meta=meta)
    tokenizer = tokenizer_of(processor)
    ensure_pad_token(tokenizer)
    old_size = len(tokenizer)
    new_ids = add_new_tokens(tokenizer, args.new_special_tokens)
    fit_embedding(model, tokenizer, new_ids, old_size)
    return Loaded(model, processor, tokenizer, replace(info, new_token_ids=new_ids))


def _processor(info: ModelInfo, args: ModelArgs) -> tuple[Any, tuple[int, ...], int]:
    """(processor, ids of new special tokens, length of the base's tokenizer before any token was added)."""
    home = next((d for d in reversed(info.adapters) if os.path.isfile(os.path.join(d, 'tokenizer_config.json'))), info.model_dir)
    processor = _read_processor(home, info, args)
    tokenizer = tokenizer_of(processor)
    ensure_pad_token(tokenizer)
    old_size = len(tokenizer)
    if home != info.model_dir:  # an adapter may have been trained with more tokens than its base has
        old_size = min(old_size, len(tokenizer_of(_read_processor(info.model_dir, info, args))))
    before = len(tokenizer)
    new_ids = add_new_tokens(tokenizer, args.new_special_tokens)
    return processor, new_ids, min(old_size, before)


def _read_processor(home: str, info: ModelInfo, args: ModelArgs) -> Any:
    has_processor = info.is_multimodal and any(os.path.isfile(os.path.join(home, name)) for name in PROCESSOR_FILES)
    try:
        if has_processor:
            from transformers import AutoProcessor

            processor = AutoProcessor.from_pretrained(home, trust_remote_code=args.trust_remote_code)
            if hasattr(processor, 'tokenizer') or hasattr(processor, 'encode'):
                return processor
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(home, trust_remote_code=args.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        late = 'import swift before transformers, which has looked for torchvision already.' if has_processor and came_late() else None
        what = 'processor' if has_processor else 'tokenizer'
        raise ModelError(f'the {what} in {home} can not be loaded: {_one_line(error)}', late or _remote_hint(error)) from error


def build_config(info: ModelInfo, args: ModelArgs) -> Any:
    """The transformers configuration with `--rope_scaling` and the classes of a classifier in it."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    known = info.config_type in CONFIG_MAPPING_NAMES
    if not known and 'auto_map' in info.config and not args.trust_remote_code:
        raise ModelError(
            f'{info.model_dir} brings its own Python code (model_type {info.config_type!r});',
            'read it, then pass --trust_remote_code true to run it.',
        )
    try:
        config = AutoConfig.from_pretrained(info.model_dir, trust_remote_code=args.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        raise ModelError(f'config.json of {info.model_dir} can not be used: {_one_line(error)}', _remote_hint(error)) from error
    config = inner_config(config)
    if args.rope_scaling:
        _scale_rope(config.get_text_config(), args)
    if head := heads.wanted_head(args):
        heads.configure(head, config, info, args)
    return config


def _scale_rope(config: Any, args: ModelArgs) -> None:
    parameters = getattr(config, 'rope_parameters', None)
    if not parameters:
        raise ModelError(f'--rope_scaling: models of type {config.model_type} have no rotary positions to scale.')
    nested = {key: value for key, value in parameters.items() if isinstance(value, dict)}
    old = next(iter(nested.values()), parameters)
    original = old.get('original_max_position_embeddings') or config.max_position_embeddings
    fields = options.rope(args.rope_scaling, args.rope_scaling_factor, args.max_model_len, original)
    kept = ('rope_theta', 'partial_rotary_factor')
    scaled = {
        key: {**{k: v for k, v in value.items() if k in kept}, **fields} for key, value in (nested or {'': parameters}).items()
    }
    config.rope_parameters = scaled if nested else scaled['']
    if fields['rope_type'] == 'yarn':  # yarn alone reads the stretched length from the configuration
        config.max_position_embeddings = int(fields['original_max_position_embeddings'] * fields['factor'])


def _lengths(config: Any, args: ModelArgs) -> dict[str, Any]:
    if args.max_model_len or not args.rope_scaling:
        return {}
    return {'max_model_len': describe_length(config.get_text_config().to_dict())}


def describe_length(text: dict[str, Any]) -> int | None:
    """Longest context of a configuration, with linear and dynamic scaling counted in."""
    rope = text.get('rope_parameters') or {}
    rope = next((value for value in rope.values() if isinstance(value, dict)), rope)
    factor = rope.get('factor', 1.0) if rope.get('rope_type') in ('linear', 'dynamic') else 1.0
    return int(text_part(text)['max_position_embeddings'] * factor)


def torch_dtype(name: str | None, info: ModelInfo) -> Any:
    """The torch.dtype that `--torch_dtype` means for this model on this machine.

    `auto`: the type of config.json on an accelerator; float32 on the CPU, where half precision is slow and inexact.
    A quantised checkpoint keeps its own.
    """
    import torch

    spellings = {'bf16': 'bfloat16', 'fp16': 'float16', 'half': 'float16', 'fp32': 'float32', 'float': 'float32'}
    name = (name or 'auto').removeprefix('torch.')
    name = spellings.get(name, name)
    if name != 'auto':
        if name not in ('bfloat16', 'float16', 'float32'):
            raise ModelError(f'unknown --torch_dtype {name!r};', 'known: auto, bfloat16, float16, float32.')
        return getattr(torch, name)
    if not torch.accelerator.is_available() and info.quant_method is None:
        return torch.float32
    stored = info.torch_dtype if info.torch_dtype in ('bfloat16', 'float16', 'float32') else 'auto'
    return getattr(torch, stored, 'auto')


def _placement(args: ModelArgs, info: ModelInfo, for_training: bool) -> str | dict | None:
    """device_map: what the user says; else this process's accelerator, unless the weights will be sharded."""
    given = options.device_map(args.device_map)
    if given is not None:
        return given
    import torch

    if not torch.accelerator.is_available():
        return None
    sharded = os.environ.get('ACCELERATE_USE_FSDP') == 'true' or os.environ.get('ACCELERATE_USE_DEEPSPEED') == 'true'
    if for_training and sharded:
        return None
    return {'': f'{torch.accelerator.current_accelerator().type}:{local_rank()}'}


def _weights(info: ModelInfo, args: ModelArgs, config: Any, for_training: bool) -> Any:
    """from_pretrained with our names, our errors, and a strict look at what was loaded."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    cls = model_class(info, config, args)
    kwargs: dict[str, Any] = dict(
        config=config,
        dtype=torch_dtype(args.torch_dtype, info),
        attn_implementation=options.attention(args.attn_impl, tuple(ALL_ATTENTION_FUNCTIONS.keys())),
        experts_implementation=args.experts_impl,
        device_map=_placement(args, info, for_training),
        max_memory=options.max_memory(args.max_memory),
        offload_folder=args.offload_folder,
        key_mapping=key_mapping(info.config_type),
        trust_remote_code=args.trust_remote_code or None,
    )
    for key, value in args.model_kwargs.items():
        if hasattr(config, key) and key not in kwargs:
            setattr(config, key, value)
        else:
            kwargs[key] = value
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    try:
        fresh = heads.seeded() if heads.wanted_head(args) else contextlib.nullcontext()
        with _one_at_a_time, _quiet((info.num_params or 0) < 1e9), fresh:
            model, report = cls.from_pretrained(
                info.model_dir, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
    except SwiftError:
        raise
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise ModelError(f'{info.model_dir} can not be loaded: {_one_line(error)}', _remote_hint(error)) from error
    _check_weights(model, report, info, args.init_strategy)
    return model


def model_class(info: ModelInfo, config: Any, args: ModelArgs) -> Any:
    """The class for `--task_type`; for text generation the one config.json names, else what the Auto classes know."""
    import transformers
    from transformers.models.auto import modeling_auto

    if head := heads.wanted_head(args):
        return heads.class_for(head, info, config, args)

    if inner := inner_class(info.config_type):
        return inner
    if args.trust_remote_code and 'AutoModelForCausalLM' in (info.config.get('auto_map') or {}):
        return transformers.AutoModelForCausalLM
    for name in info.architectures:
        if name.endswith(('ForCausalLM', 'LMHeadModel', 'ForConditionalGeneration')) and hasattr(transformers, name):
            return getattr(transformers, name)
    if type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.AutoModelForCausalLM
    if type(config) in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    if not info.architectures and info.is_multimodal:
        return transformers.AutoModelForImageTextToText
    raise ModelError(
        f'models of type {info.config_type!r} have no language-model head in transformers {transformers.__version__};',
        'check the model, or pass --trust_remote_code true if it brings its own code.',
    )


def _check_weights(model: Any, report: dict[str, Any], info: ModelInfo, init_strategy: str | None) -> None:
    """ModelError unless every weight but those of a new head came from the checkpoint; `init_strategy` fills missing ones."""
    mismatched = sorted(report['mismatched_keys'])
    if mismatched:
        heads.check_shapes(model, mismatched, info)
        key, there, here = mismatched[0]
        raise ModelError(
            f'{info.model_dir}: {len(mismatched)} weights have another shape than config.json says '
            f'(first: {key} is {tuple(there)}, not {tuple(here)});',
            'config.json and the weights do not belong together.',
        )
    new, missing = heads.split_missing(model, sorted(report['missing_keys']))
    if missing and init_strategy is None:
        raise ModelError(
            f'{info.model_dir}: {len(missing)} weights are missing (first: {", ".join(missing[:3])});',
            'the checkpoint is incomplete or of another architecture; --init_strategy fills them on purpose.',
        )
    if not info.adapters:  # an adapter brings its own head
        heads.tell_new(model, new)
    _check_surplus(model, sorted(report['unexpected_keys']), info)
    if missing:
        from swift.model.initialise import fill

        fill(model, missing, init_strategy)
        logger.warning('%d missing weights were filled (%s): %s …', len(missing), init_strategy, ', '.join(missing[:3]))


def _check_surplus(model: Any, surplus: list[str], info: ModelInfo) -> None:
    """Stored weights without a place: ModelError when they are parts that the model has elsewhere (more layers than config.json
    says), a warning when they are something else (heads for another purpose)."""
    known = {_pattern(name) for name in model.state_dict()} if surplus else set()
    lost = [name for name in surplus if _pattern(name) in known]
    if lost:
        raise ModelError(
            f'{info.model_dir}: {len(lost)} weights have no place in {type(model).__name__} (first: {", ".join(lost[:3])});',
            'config.json names fewer layers than the checkpoint has, or they do not belong together.',
        )
    if head_kind(model) != LANGUAGE:
        surplus = [name for name in surplus if not heads.is_other_head(model, name)]
    if surplus:
        logger.warning(
            '%s: %d weights are not part of %s and are left out (%s%s)', info.model_dir, len(surplus), type(model).__name__,
            ', '.join(surplus[:3]), ', …' if len(surplus) > 3 else '',
        )  # fmt: skip


def _pattern(name: str) -> str:
    """A parameter's name without its layer numbers."""
    return re.sub(r'(?<=\.)\d+(?=\.)', '*', name)


@contextlib.contextmanager
def _quiet(small: bool) -> Iterator[None]:
    """Silence transformers' own load report (what it says is checked and raised here) and the bar of small models."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if small:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return text if len(text) <= 300 else text[:297] + '…'


def _remote_hint(error: BaseException) -> str | None:
    return 'pass --trust_remote_code true to run the code that comes with it.' if 'trust_remote_code' in str(error) else None

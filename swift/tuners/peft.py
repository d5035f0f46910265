"""LoRA through PEFT: built, stored and loaded strictly. PEFT is imported here and nowhere else in the house."""

from __future__ import annotations

import json
import os
import re
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from swift.core.errors import CheckpointError, ModelError, did_you_mean
from swift.core.heads import BARE, LANGUAGE, SEQUENCE, TOKEN, head_kind
from swift.core.log import get_logger
from swift.tuners import targets
from swift.tuners.heads import train_in_float32
from swift.tuners.modules import find_all_linears, input_embedding, name_of, output_head
from swift.tuners.starts import add_to_base, as_difference, halves, loftq

if TYPE_CHECKING:
    from swift.arguments.tuner import TunerArgs

logger = get_logger(__name__)

ADAPTER_FILE = 'adapter_model.safetensors'
_SPLIT = 'initial_adapter'
"""Key in the file's metadata that says: the second half of every matrix is the initial adapter (PiSSA, OLoRA); its
value holds the settings that it was trained with."""
_SETTINGS = ('r', 'lora_alpha', 'use_rslora', 'init_lora_weights', 'rank_pattern', 'alpha_pattern')
_TASKS = {LANGUAGE: 'CAUSAL_LM', SEQUENCE: 'SEQ_CLS', TOKEN: 'TOKEN_CLS', BARE: 'FEATURE_EXTRACTION'}
_CHANGES_BASE = re.compile(r'pissa(_niter_\d+)?|olora')
_INITS = {'true': True, 'false': False, 'gaussian': 'gaussian', 'orthogonal': 'orthogonal', 'olora': 'olora', 'pissa': 'pissa'}

_initial: weakref.WeakKeyDictionary[Any, dict[str, Tensor]] = weakref.WeakKeyDictionary()
"""Model → its adapter as initialised, for initialisations that take the adapter out of the base weights."""


class LoRA:
    """`--tuner_type lora`."""

    @staticmethod
    def prepare(model: Any, args: TunerArgs, info: Any = None) -> Any:
        """Wrap the targeted modules with fresh adapters; nothing else stays trainable."""
        config = build_config(model, args, info)
        if next(model.parameters()).device.type == 'meta':  # a plan: shapes only, nothing to decompose
            config.init_lora_weights = True
            return _wrap(model, config)
        tuned = _wrap(model, config)
        if args.lora_dtype is not None:
            cast_adapter(tuned, getattr(torch, args.lora_dtype))
        for parameter in tuned.parameters():  # float16 gradients of float16 weights can't be scaled
            if parameter.requires_grad and parameter.dtype == torch.float16 and args.lora_dtype is None:
                parameter.data = parameter.data.float()
        train_in_float32(tuned)
        if getattr(model.config, 'model_type', None) == 'reformer':  # reversible layers differentiate by their input
            tuned.enable_input_require_grads()
        if args.init_weights == 'loftq':
            loftq(tuned)
        else:
            remember_start(tuned, config)
        return tuned

    @staticmethod
    def save(
        model: Any,
        directory: str,
        *,
        processor: Any = None,
        state_dict: dict | None = None,
        dtype: Any = None,
        name: str = 'default',
    ) -> None:
        """Write adapter_config.json and adapter_model.safetensors, which plain PEFT loads onto the original base.

        An adapter that was split off the base weights (PiSSA, OLoRA) is stored as the difference to its start: rank
        doubles, the base is the one on the hub.
        """
        os.makedirs(directory, exist_ok=True)
        config = model.peft_config[name]
        weights = adapter_state(model, name, state_dict)
        metadata = {'format': 'pt'}
        if model in _initial:
            weights, config = as_difference(weights, _initial[model], config)
            trained = model.peft_config[name]
            metadata[_SPLIT] = json.dumps({key: getattr(trained, key) for key in _SETTINGS})
        if dtype is not None:
            weights = {key: value.to(dtype) for key, value in weights.items()}
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in weights.items()},
                  os.path.join(directory, ADAPTER_FILE), metadata=metadata)  # fmt: skip
        _config_for_disk(config, model).save_pretrained(directory)
        if processor is not None:
            processor.save_pretrained(directory)

    @staticmethod
    def load(model: Any, directory: str, *, trainable: bool = False, name: str = 'default') -> Any:
        """Put a stored adapter on a model (a second one beside the first under another name).

        Every stored tensor must have a place of its shape and every place a tensor, else CheckpointError.
        """
        config = _read_config(directory, trainable)
        stored, metadata = _read_weights(directory)
        if trainable and _SPLIT in metadata:
            return _resume_split(model, config, stored, json.loads(metadata[_SPLIT]), name)
        tuned = _wrap(model, config, name)
        if trainable:
            train_in_float32(tuned, name)
        problem = fill(tuned, stored, name)
        if problem is None:
            return tuned
        if len(tuned.peft_config) > 1:
            tuned.delete_adapter(name)
            raise CheckpointError(f'the adapter {directory} does not fit: {problem}', 'was it trained on this base model?')
        return _through_peft(tuned.unload(), directory, name, trainable, problem)


def build_config(model: Any, args: TunerArgs, info: Any = None) -> LoraConfig:
    """The LoraConfig that the arguments mean for this model."""
    multimodal = bool(info is not None and info.is_multimodal)
    tokens = _token_rows(model, args, info)
    saved = targets.with_head(model, targets.modules_to_save(model, args.modules_to_save))
    parameters = targets.target_parameters(model, args.target_parameters)
    modules = []
    if args.target_modules or args.target_regex:
        modules = targets.target_modules(model, args, multimodal=multimodal, skipped=taken_for_experts(model))
    if not modules and not parameters:
        raise ModelError('LoRA has nothing to adapt;', 'name modules in --target_modules or --target_regex.')
    experts = bool(parameters) or _means_experts(model, modules)
    if experts and args.lora_dropout:
        logger.info('--lora_dropout is taken as 0: bare parameters (experts) are adapted, and have no input to drop')
    config = LoraConfig(
        task_type=_TASKS[head_kind(model)],
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        rank_pattern=targets.tower_ranks(model, modules, args.vit_lora_rank),
        lora_dropout=0.0 if experts else args.lora_dropout,
        target_modules=modules,
        target_parameters=parameters,
        modules_to_save=saved,
        bias=args.lora_bias,
        use_rslora=args.use_rslora,
        use_dora=args.use_dora,
        init_lora_weights=_init(args),
        trainable_token_indices=tokens,
        ensure_weight_tying=bool(saved) and bool(getattr(model.config, 'tie_word_embeddings', False)),
    )
    return config


def taken_for_experts(model: Any) -> frozenset[str]:
    """Last names of linear layers that PEFT takes for stacked experts in this architecture.

    Where experts were separate layers once (qwen2_moe and its relatives), PEFT reads `gate_proj`, `up_proj`, `down_proj`
    as the stacked parameters, also when dense layers and shared experts are meant; an adapter on those could not be
    loaded by PEFT again.
    """
    names = {name.rpartition('.')[2] for name in find_all_linears(model)}
    taken = frozenset(name for name in names if _means_experts(model, [name]))
    if taken:
        logger.info('all-linear leaves out %s: PEFT takes these names for the experts of %s', ', '.join(sorted(taken)), model.config.model_type)
    return taken


def _means_experts(model: Any, modules: list[str] | str) -> bool:
    """Whether PEFT would turn these target modules into target parameters."""
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # a PEFT from before transformers 5
        return False
    if not modules or not hasattr(model.config, 'model_type'):
        return False
    trial = LoraConfig(target_modules=modules)
    try:
        convert_peft_config_for_transformers(trial, model, None)
    except ValueError:  # one of several names that are fused into one parameter
        return True
    return bool(trial.target_parameters)


def _init(args: TunerArgs) -> bool | str:
    name = str(args.init_weights).lower()
    if name == 'loftq':
        return True
    if name in _INITS or _CHANGES_BASE.fullmatch(name):
        if args.use_dora and _CHANGES_BASE.fullmatch(name):
            raise ModelError(f'--use_dora can not be combined with --init_weights {name};', 'choose one.')
        return _INITS.get(name, name)
    known = [*_INITS, 'pissa_niter_16', 'loftq']
    raise ModelError(f'unknown --init_weights {args.init_weights!r};', did_you_mean(name, known) or f'known: {", ".join(known)}')


def _token_rows(model: Any, args: TunerArgs, info: Any) -> dict[str, list[int]] | None:
    """Rows of new special tokens, trained alone; None when there are none or the whole embedding is trained anyway."""
    ids = sorted(info.new_token_ids) if info is not None and info.new_token_ids else None
    if not ids:
        return None
    embedding, head = input_embedding(model), output_head(model)
    tied = head is not None and embedding is not None and head.weight is embedding.weight
    in_full = set(targets.modules_to_save(model, args.modules_to_save) or [])
    names = [(name_of(model, module) or '').rpartition('.')[2] for module in (embedding, head) if module is not None]
    if tied:
        return None if in_full & set(names) else {names[0]: ids}
    return {name: ids for name in names if name not in in_full} or None


def _wrap(model: Any, config: LoraConfig, name: str = 'default') -> Any:
    """get_peft_model, or a further adapter on a model that has one; PEFT's refusals become one line."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            if isinstance(model, PeftModel):
                model.add_adapter(name, config)
                return model
            return get_peft_model(model, config, adapter_name=name)
        except (ValueError, NotImplementedError, TypeError, RuntimeError) as error:
            raise ModelError(f'PEFT refuses this adapter: {" ".join(str(error).split())[:300]}') from error


def cast_adapter(model: Any, dtype: torch.dtype) -> None:
    """Give the adapter weights (not modules_to_save) another type."""
    for key, parameter in model.named_parameters():
        if 'lora_' in key and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def adapter_state(model: Any, name: str = 'default', state_dict: dict | None = None) -> dict[str, Tensor]:
    """The tensors of one adapter under their file names; they share memory with the model's."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return get_peft_model_state_dict(model, state_dict=state_dict, adapter_name=name, save_embedding_layers=False)


@torch.no_grad()
def fill(model: Any, stored: dict[str, Tensor], name: str) -> str | None:
    """Copy stored tensors into an adapter; None when every key and shape agreed, else what did not (nothing is copied)."""
    own = adapter_state(model, name)
    base = dict(model.named_parameters()) if set(stored) - set(own) else {}
    places = {**{key: base[key] for key in stored if key not in own and key in base}, **own}
    missing, unexpected = sorted(set(own) - set(stored)), sorted(set(stored) - set(places))
    for kind, keys in (('missing', missing), ('unexpected', unexpected)):
        if keys:
            return f'{len(keys)} {kind} weights (first: {", ".join(keys[:3])});'
    for key, value in stored.items():
        if places[key].shape != value.shape:
            return f'{key} is {tuple(value.shape)}, the model wants {tuple(places[key].shape)};'
    for key, value in stored.items():
        places[key].copy_(value)
    return None


def _through_peft(model: Any, directory: str, name: str, trainable: bool, problem: str) -> Any:
    """Let PEFT translate an adapter that was written for another version of the model's modules; still strictly."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try:
            tuned = PeftModel.from_pretrained(model, directory, adapter_name=name, is_trainable=trainable)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise CheckpointError(
                f'the adapter {directory} does not fit: {problem}', 'was it trained on this base model?'
            ) from error
    stored, _ = _read_weights(directory)
    lost = next((str(w.message) for w in caught if 'missing adapter keys' in str(w.message)), None)
    if lost or len(adapter_state(tuned, name)) < len({key for key in stored if '.lora_' in key}):
        raise CheckpointError(f'the adapter {directory} does not fit: {problem}', 'was it trained on this base model?')
    return tuned


def _read_config(directory: str, trainable: bool) -> Any:
    if not os.path.isfile(os.path.join(directory, 'adapter_config.json')):
        raise CheckpointError(f'{directory} holds no adapter (adapter_config.json).')
    try:
        config = PeftConfig.from_pretrained(directory)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CheckpointError(f'{directory}/adapter_config.json can not be used: {error}') from error
    config.inference_mode = not trainable
    return config


def _read_weights(directory: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = os.path.join(directory, ADAPTER_FILE)
    if os.path.isfile(path):
        try:
            with safe_open(path, framework='pt') as file:
                metadata = file.metadata() or {}
            return load_file(path), metadata
        except Exception as error:  # SafetensorError has no public base class
            raise CheckpointError(f'{path} can not be read: {error};', 'is the file complete?') from error
    pickled = os.path.join(directory, 'adapter_model.bin')
    if os.path.isfile(pickled):
        return torch.load(pickled, map_location='cpu', weights_only=True), {}
    raise CheckpointError(f'{directory} has no {ADAPTER_FILE};', 'the checkpoint is incomplete.')


def _config_for_disk(config: Any, model: Any) -> Any:
    import copy

    config = copy.deepcopy(config)
    config.inference_mode = True
    if config.modules_to_save:  # PEFT adds the usual names of heads each time
        config.modules_to_save = targets.found_names(model.get_base_model(), config.modules_to_save)
    if not config.base_model_name_or_path:
        config.base_model_name_or_path = getattr(model.get_base_model(), 'name_or_path', None) or None
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)
    if getattr(config, 'init_lora_weights', None) not in (True, False):
        config.init_lora_weights = True  # else PEFT would repeat the initialisation, and change the base, on loading
    return config


def _resume_split(model: Any, config: Any, stored: dict[str, Tensor], settings: dict[str, Any], name: str) -> Any:
    """Go on training a PiSSA or OLoRA adapter on a fresh base: same residual base, same adapter of rank r."""
    now, start = halves(stored)
    for key, value in settings.items():
        setattr(config, key, value)
    config.init_lora_weights = True  # the base is not decomposed again
    tuned = _wrap(model, config, name)
    problem = fill(tuned, {**now, **start}, name)
    if problem is not None:
        raise CheckpointError(f'the adapter does not fit: {problem}', 'was it trained on this base model?')
    add_to_base(tuned, name, -1.0)
    fill(tuned, now, name)
    tuned.peft_config[name].init_lora_weights = settings['init_lora_weights']
    _initial[tuned] = start
    return tuned


def restore(model: Any, directory: str, name: str = 'default') -> str | None:
    """Fill an adapter that was prepared with the run's own settings from its checkpoint; None, or what does not fit.

    A PiSSA or OLoRA start that was drawn anew is put back to the stored one, base weights included.
    """
    stored, metadata = _read_weights(directory)
    if _SPLIT not in metadata:
        return fill(model, stored, name)
    now, start = halves(stored)
    drawn = _initial.get(model)
    same = drawn is not None and all(key in drawn and torch.equal(drawn[key], value.to(drawn[key].dtype)) for key, value in start.items())
    if not same:
        for weights, sign in ((drawn or {}, 1.0), ({**now, **start}, -1.0)):
            if weights:
                problem = fill(model, weights, name)
                if problem is not None:
                    return problem
                add_to_base(model, name, sign)
        _initial[model] = start
    return fill(model, now, name)


def remember_start(tuned: Any, config: Any) -> None:
    """For `start_of`: keep a fresh adapter whose start `config` takes out of the base weights."""
    start = getattr(config, 'init_lora_weights', None)
    if isinstance(start, str) and _CHANGES_BASE.fullmatch(start):
        _initial[tuned] = {key: value.detach().cpu().clone() for key, value in adapter_state(tuned).items()}


def start_of(model: Any) -> dict[str, Tensor] | None:
    """The adapter as initialised, under its file names, where that was taken out of the base weights; None: it was not."""
    return _initial.get(model)


def adapter_settings(directory: str) -> dict[str, Any]:
    """adapter_config.json, with the rank and scaling that a stored difference was trained with."""
    settings = read_json(os.path.join(directory, 'adapter_config.json'))
    path = os.path.join(directory, ADAPTER_FILE)
    if os.path.isfile(path):
        with safe_open(path, framework='pt') as file:
            settings.update(json.loads((file.metadata() or {}).get(_SPLIT, '{}')))
    return settings


def read_json(path: str) -> dict[str, Any]:
    """A JSON object; CheckpointError when the file isn't one."""
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} is not readable: {error}.') from None

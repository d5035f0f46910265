"""Settings that come from an earlier run's args.json, checkpoint aliases of --model_type, and what must be there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from swift.arguments import later
from swift.arguments.backend_rules import implied_backend
from swift.arguments.commands import CLASSES, TRAINING
from swift.arguments.data import DataArgs
from swift.arguments.deploy import named
from swift.arguments.deploy_rules import listed_adapters
from swift.arguments.flags import flags_of
from swift.arguments.methods import METHODS, SHARED, method_of
from swift.arguments.model import ModelArgs
from swift.arguments.rlhf import RlhfArgs
from swift.arguments.saved import SavedArgs, find_checkpoint, load_saved_args
from swift.arguments.task import ScoringArgs, TaskArgs
from swift.arguments.template import TemplateArgs
from swift.core.errors import SwiftError, did_you_mean

Settings = dict[str, tuple[Any, str]]
"""Flag → value and where it came from."""

_OF_THE_HEAD = {f.name for f in fields(ScoringArgs)} | {'task_type', 'num_labels', 'problem_type', 'class_names'}
"""What the outputs of a trained model mean. Taken over also where the data or the method decided it."""
_OF_THE_MODEL = (
    {f.name for f in fields(ModelArgs)} | {f.name for f in fields(TemplateArgs)} | {'use_hf', 'external_plugins'} | _OF_THE_HEAD
)
_OF_THE_METHOD = {f.name for group in (RlhfArgs, TaskArgs) for f in fields(group)} | SHARED | {'loss_type', 'loss_kwargs'}
_OF_THE_DATA = {f.name for f in fields(DataArgs)} | {'seed', 'root_image_dir'}
_OF_THE_MACHINE = {
    'device_map',
    'max_memory',
    'offload_folder',
    'adapters',
    'max_length',
    'truncation_strategy',
    'padding_free',
    'loss_scale',
    'root_image_dir',
}
_OF_THE_START = {
    'resume_from_checkpoint',
    'resume_only_model',
    'dry_run',
    'ignore_args_error',
    'load_args',
    'load_data_args',
    'hub_token',
}
_DROPS = {
    'val_dataset': {'split_dataset_ratio'},
    'split_dataset_ratio': {'val_dataset'},
    'target_modules': {'target_regex'},
    'target_regex': {'target_modules'},
    'max_steps': {'num_train_epochs'},
    'num_train_epochs': {'max_steps'},
    'warmup_ratio': {'warmup_steps'},
    'warmup_steps': {'warmup_ratio'},
    'max_batch_tokens': {'per_device_train_batch_size'},
    'per_device_train_batch_size': {'max_batch_tokens'},
    'template': {'agent_template'},
    'rope_scaling': {'rope_scaling_factor'},
    'nframes': {'fps'},
    'fps': {'nframes'},
    'loss_type': {'loss_weights', 'loss_kwargs'},
    'num_labels': {'class_names'},
    'class_names': {'num_labels'},
}
"""Flag → saved flags that giving it anew leaves behind, since they decide the same thing or belong to its old value."""


def inherit(
    command: str, explicit: Settings, values: dict[str, Any], mistakes: list[str]
) -> tuple[Settings, list[str]]:
    """All settings: those given, and for what is left out those of the checkpoint that is named. Also notes for the user."""
    settings, notes = dict(explicit), []
    for prefix in ('', 'ref_'):
        _model_alias(prefix, settings, values, notes)
    _places(command, settings, mistakes, notes)
    values = values | {'resume_from_checkpoint': None} | {name: value for name, (value, _) in settings.items()}
    try:
        saved, wanted = _saved(command, settings, values)
    except SwiftError as error:
        mistakes.append(str(error))
        return settings, notes
    if saved is not None:
        if command in TRAINING and not _same_head(command, saved, values, settings):
            wanted = wanted - _OF_THE_HEAD
        if command in TRAINING and 'resume_from_checkpoint' in settings and saved.command:
            before, now = _methods(command, saved, settings)
            if before != now:
                wanted = wanted - (_OF_THE_METHOD - _OF_THE_HEAD)
                if not values['resume_only_model']:
                    mistakes.append(
                        f'--resume_from_checkpoint continues {saved.path}, a run of {before}, and can not go on as {now}; '
                        'add --resume_only_model true to start from its weights'
                    )
        _take_over(command, saved, wanted, settings)
    _base_model(settings)
    implied_backend(settings)
    return settings, notes


def _base_model(settings: Settings) -> None:
    """An adapter that was trained elsewhere names its model in adapter_config.json."""
    trained = settings.get('adapters', ([], ''))[0] or [settings.get('resume_from_checkpoint', ('', ''))[0]]
    path = named(trained[0])[1] if trained[0] else trained[0]
    file = os.path.join(find_checkpoint(path) or path, 'adapter_config.json')
    if settings.get('model', (None, ''))[0] or not os.path.isfile(file):
        return
    with open(file, encoding='utf-8') as stream:
        model = json.load(stream).get('base_model_name_or_path')
    if model:
        settings['model'] = (model, file)


def _same_head(command: str, saved: SavedArgs, values: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a training that goes on from a checkpoint trains the kind of model that is stored there."""
    if command == 'verify':
        return True
    wanted = saved.values.get('task_type') or 'causal_lm'
    if values.get('rlhf_type') in METHODS:
        wanted = METHODS[values['rlhf_type']].defaults.get('task_type', 'causal_lm')
    if 'task_type' in settings:
        wanted = settings['task_type'][0]
    return wanted == saved.values.get('task_type', 'causal_lm')


def _methods(command: str, saved: SavedArgs, settings: Settings) -> tuple[str, str]:
    """The training method of a run, and the one that these settings continue it with (pre-training counts as sft)."""
    own = flags_of(CLASSES[command])
    values = {name: saved.values.get(name, own[name].default) for name in ('rlhf_type', 'task_type') if name in own}
    values |= {name: settings[name][0] for name in values if name in settings}
    return method_of('sft', saved.values), method_of('sft', values)


def _take_over(command: str, saved: SavedArgs, wanted: set[str], settings: Settings) -> None:
    dropped = set().union(*(_DROPS.get(name, set()) for name in settings))
    if 'training_args' in settings and 'training_args' in saved.values:
        passed, source = settings['training_args']
        settings['training_args'] = ({**saved.values['training_args'], **passed}, source)
    for name in flags_of(CLASSES[command]):
        if name not in wanted or name not in saved.values or name in settings:
            continue
        if saved.sources.get(name) == 'derived' and name not in _OF_THE_HEAD:
            continue
        if name not in saved.sources and saved.values[name] is None:
            continue
        if name in dropped:
            continue
        settings[name] = (saved.values[name], f'args.json of {os.path.dirname(saved.path)}')


def _saved(command: str, settings: Settings, values: dict[str, Any]) -> tuple[SavedArgs | None, set[str]]:
    """The args.json that counts, and which of its flags are taken over."""
    everything = set(flags_of(CLASSES[command]))
    resumed = _resume_root(values) if command in TRAINING else None
    if resumed:
        return load_saved_args(resumed), everything - _OF_THE_START
    if command in TRAINING and command != 'verify' and values['adapters'] and not values['model']:
        return load_saved_args(values['adapters'][0]), _OF_THE_MODEL - _OF_THE_MACHINE
    if not values['load_args']:
        return None, set()
    if values['adapters']:
        path, wanted = named(values['adapters'][0])[1], _OF_THE_MODEL - _OF_THE_MACHINE
    else:
        path, wanted = (
            values['model'] or '',
            _OF_THE_MODEL - _OF_THE_MACHINE - {'model', 'model_type', 'model_revision'},
        )
    if command == 'verify':
        wanted = wanted | _OF_THE_DATA | _OF_THE_METHOD | {'max_length', 'truncation_strategy'}
    elif values['load_data_args'] and command != 'eval':
        wanted = wanted | _OF_THE_DATA
    return (load_saved_args(path) if os.path.isdir(path) else None), wanted


def _places(command: str, settings: Settings, mistakes: list[str], notes: list[str]) -> None:
    """Run directories stand for their last checkpoint; `true` stands for the last run."""
    if 'adapters' in settings:
        paths, source = settings['adapters']
        if command in ('deploy', 'app'):
            paths = _listed(paths, mistakes)
        settings['adapters'] = ([_checkpoint_of(path) for path in paths], source)
    if 'resume_from_checkpoint' in settings:
        _resumed(settings, mistakes)
    if command in ('infer', 'eval', 'sample', 'deploy', 'app', 'export', 'merge-lora', 'verify') and 'model' in settings and 'adapters' not in settings:
        path, source = settings['model']
        found = find_checkpoint(path) if path else None
        if (
            found
            and os.path.isfile(os.path.join(found, 'adapter_config.json'))
            and not os.path.isfile(os.path.join(found, 'config.json'))
        ):
            notes.append(f'--model {path} holds an adapter; it is used as --adapters {found}')
            del settings['model']
            settings['adapters'] = ([found], source)


def _listed(words: list[str], mistakes: list[str]) -> list[str]:
    try:
        return listed_adapters(words)
    except ValueError as error:
        mistakes.append(f'--adapters: {error}')
        return words


def _checkpoint_of(adapter: str) -> str:
    """An adapter, `path` or `name=path`, with the checkpoint that its path stands for."""
    name, path = named(adapter)
    path = find_checkpoint(path) or path
    return path if name is None else f'{name}={path}'


def _resumed(settings: Settings, mistakes: list[str]) -> None:
    """Check that there is something to resume. Which checkpoint it is, the trainer decides: it knows a complete one."""
    path, source = settings['resume_from_checkpoint']
    if path is None or path.lower() == 'false':
        del settings['resume_from_checkpoint']
        return
    if path.lower() == 'true':
        root, _ = settings.setdefault('output_dir', ('output', source))
        settings['resume_from_checkpoint'] = ('true', source)
        if not find_checkpoint(root):
            mistakes.append(
                f'--resume_from_checkpoint true: no checkpoint in {root}; name one, or start anew without the flag'
            )
    elif not find_checkpoint(path):
        problem = 'no checkpoint-N in it' if os.path.isdir(path) else 'no such directory'
        mistakes.append(f'--resume_from_checkpoint {path}: {problem}')


def _resume_root(values: Mapping[str, Any]) -> str | None:
    """The directory that is resumed; None: none."""
    path = values.get('resume_from_checkpoint')
    return values['output_dir'] if path == 'true' else path


def _model_alias(prefix: str, settings: Settings, values: dict[str, Any], notes: list[str]) -> None:
    """`--model_type qwen-7b-chat` names a checkpoint, as in 2.x; `--model_type qwen2` names a family. The same for `--ref_model_type`."""
    flag, target = f'{prefix}model_type', f'{prefix}model'
    if flag not in settings or settings[flag][0] is None:
        return
    alias, source = settings[flag]
    ids = model_aliases().get(alias.lower().replace('.', '_'))
    if ids is None:
        return
    del settings[flag]
    if settings.get(target, (None,))[0] or settings.get(f'{prefix}adapters', (None,))[0]:
        notes.append(f'--{flag} {alias} (2.x) names a checkpoint; the family is read from the model')
        return
    modelscope, hugging_face = ids if isinstance(ids, list) else (ids, ids)
    use_hf = settings.get('use_hf', (values['use_hf'], ''))[0]
    model = hugging_face if use_hf else modelscope
    notes.append(f'--{flag} {alias} (2.x) is now --{target} {model}')
    settings[target] = (model, f'{source}, by --{flag} {alias}')


def model_aliases() -> dict[str, Any]:
    """2.x's names of checkpoints → model id, or [ModelScope id, Hugging Face id] where they differ."""
    return later.read_facts('model_aliases.json')['aliases']


def require(command: str, values: Mapping[str, Any], failed: set[str]) -> list[str]:
    """What is missing. Flags that were given wrongly (`failed`) are not asked for again."""
    missing = [
        f'--external_plugins: no such file: {path}'
        for path in values['external_plugins']
        if not os.path.exists(os.path.expanduser(path))
    ]
    resumed = _resume_root(values) if command in TRAINING else None
    if resumed and not find_checkpoint(resumed):
        return missing  # said already; what else is missing could have been there
    if (
        not values['model']
        and not values['adapters']
        and not values.get('eval_url')
        and values.get('infer_backend') != 'client'
        and not failed & {'model', 'adapters', 'model_type', 'resume_from_checkpoint'}
    ):
        missing.append(_missing_model(command, values))
    if command in ('pt', 'sft', 'rlhf', 'plan', 'preview') and not values['dataset'] and 'dataset' not in failed:
        missing.append('--dataset is required: files, folders, or ids of a hub')
    if command == 'eval' and not values['eval_dataset'] and 'eval_dataset' not in failed:
        missing.append('--eval_dataset is required: files of questions with known answers, as FILE or KIND:FILE')
    if command == 'sample' and not values['dataset'] and not values['cache_files'] and not failed & {'dataset', 'cache_files'}:
        missing.append('--dataset is required: the prompts to answer')
    if command == 'merge-lora' or (command == 'export' and values['merge_lora']):
        if not values['adapters'] and 'adapters' not in failed:
            missing.append('--adapters is required: the checkpoint directory whose adapter is merged')
    if command == 'infer' and values['dataset'] and not values['val_dataset'] and not values['split_dataset_ratio']:
        if not values['load_data_args']:
            missing.append(
                '--dataset is training data; give the rows to answer as --val_dataset (or split some off: --split_dataset_ratio)'
            )
    return missing


def _missing_model(command: str, values: Mapping[str, Any]) -> str:
    either = '' if command in TRAINING else ' (or --adapters, a trained checkpoint)'
    text = f'--model is required{either}: an id of a hub or a local directory'
    if values['model_type']:
        near = did_you_mean(values['model_type'].lower().replace('.', '_'), model_aliases(), cutoff=0.75)
        text += f'; --model_type {values["model_type"]} names no known checkpoint' + (f', {near}' if near else '')
    return text

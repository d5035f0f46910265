"""`swift merge-lora`: base + adapters → one plain model, proven to say what base + adapters said."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import asdict, replace
from typing import Any

import torch

from swift.core.errors import CheckpointError, ModelError, SwiftError
from swift.core.jsonl import write_json
from swift.core.log import get_logger
from swift.export.write import REPORT, check_place, write_model, written_whole
from swift.model.info import read_json
from swift.model.load import load_model, model_info
from swift.model.sentence_transformers import copy_files
from swift.template import get_template
from swift.tuners import load_adapter, merge
from swift.tuners.merging import largest_difference, outputs_of, probe_of

logger = get_logger()


def merge_lora(args: Any, device_map: str | dict | None = None, replace_if_exists: bool = False) -> str:
    """Merge `args.adapters` into their base model and return the directory of the result.

    `args`: ExportArguments (or any settled arguments with model, template and export groups). The result is
    `args.output_dir`, by default the first adapter's directory with `-merged` behind it; the base is `args.model`, by
    default the one that the adapter names. Each sum is made in float32 and rounded once, to the base's own type. The
    merged model must give the logits of base + adapter, and the written one those of the merged one, before anything
    appears at the output directory; what is there already is replaced only with `replace_if_exists` (or
    `args.exist_ok`), and only if a merge wrote it.
    """
    from swift.arguments import resolve

    args = resolve(args)
    if not args.adapters:
        raise SwiftError('--adapters is required:', 'the checkpoint directory whose adapter is merged')
    output = getattr(args, 'output_dir', None) or args.adapters[0].rstrip('/') + '-merged'
    replacing = replace_if_exists or getattr(args, 'exist_ok', False)
    check_place(output, replacing)
    args = replace(args, torch_dtype=_stored_dtype(args), device_map=device_map or args.device_map)
    loaded = load_model(args)
    adapters = list(loaded.info.adapters)
    template = _template(loaded.processor, args)
    model, reports = loaded.model, []
    for adapter in adapters:
        model, report = merge(_with_adapter(model, adapter, loaded.info.model_dir))
        logger.info('%s: %s', adapter, report)
        reports.append({'adapter': os.path.abspath(adapter), 'digest': adapter_digest(adapter), **asdict(report)})
    with written_whole(output, replacing) as folder:
        write_model(
            model,
            loaded.processor,
            folder,
            template=template,
            max_shard_size=getattr(args, 'max_shard_size', '5GB'),
            safe=getattr(args, 'safe_serialization', True),
        )
        _copy_settings(adapters[0], folder)
        copy_files(adapters[0], folder)
        difference = _read_back(model, folder, args)
        logger.info('read back from disk: max|Δlogit| against the merged model %.2e', difference)
        facts = {'base': loaded.info.model_dir, 'dtype': str(model.dtype).removeprefix('torch.')}
        write_json(os.path.join(folder, REPORT), {**facts, 'merged': reports, 'read_back_max_diff': difference})
    logger.info('merged model: %s', output)
    return output


def is_merge_of(directory: str, adapters: list[str]) -> bool:
    """Whether a directory holds a finished merge of exactly these adapters as they are now."""
    path = os.path.join(directory, REPORT)
    if not os.path.isfile(path):
        return False
    return [item.get('digest') for item in read_json(path).get('merged', [])] == [adapter_digest(a) for a in adapters]


def adapter_digest(adapter: str) -> str:
    """A name for the contents of an adapter: its configuration and weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(os.listdir(adapter)):
        if name.startswith(('adapter_', 'tuner_')):
            digest.update(name.encode())
            with open(os.path.join(adapter, name), 'rb') as file:
                while block := file.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()


def _stored_dtype(args: Any) -> str:
    """The type in which the base is stored, so that the result is rounded to it once; what the user says wins."""
    if args.torch_dtype not in (None, 'auto'):
        return args.torch_dtype
    return model_info(args).torch_dtype or 'auto'


def _template(processor: Any, args: Any) -> Any:
    """The template of the run, and its source on the processor; None for a base model without one."""
    tokenizer = getattr(processor, 'tokenizer', None) or processor
    own = getattr(processor, 'chat_template', None) or getattr(tokenizer, 'chat_template', None)
    if not args.use_chat_template or not (args.template or own):
        return None
    template = get_template(processor, args)
    if args.template:
        for owner in {id(o): o for o in (processor, tokenizer)}.values():
            owner.chat_template = template.chat_template
    return template


def _with_adapter(model: Any, adapter: str, base: str) -> Any:
    recorded = read_json(os.path.join(adapter, 'adapter_config.json')).get('base_model_name_or_path')
    elsewhere = recorded and os.path.basename(os.path.normpath(recorded)) != os.path.basename(os.path.normpath(base))
    try:
        model = load_adapter(model, [adapter])
    except (CheckpointError, ModelError, ValueError, RuntimeError) as error:
        trained = f'it was trained on {recorded}: ' if recorded else ''
        reason = ' '.join(str(error).split())[:300]
        raise CheckpointError(
            f'the adapter {adapter} does not fit the model {base}; {trained}{reason}', 'name its base with --model'
        ) from error
    if elsewhere:
        logger.warning('%s was trained on %s; it is merged into %s, as asked', adapter, recorded, base)
    return model


def _copy_settings(adapter: str, folder: str) -> None:
    """args.json goes along, so that `swift infer --model merged` finds template and system prompt."""
    for place in (adapter, os.path.dirname(os.path.abspath(adapter))):
        source = os.path.join(place, 'args.json')
        if os.path.isfile(source):
            shutil.copyfile(source, os.path.join(folder, 'args.json'))
            return


@torch.no_grad()
def _read_back(model: Any, folder: str, args: Any) -> float:
    """Load what was written and compare its outputs with the model in memory. Raises CheckpointError when they differ."""
    written = load_model(replace(args, model=folder, adapters=[], new_special_tokens=[], model_type=None, rope_scaling=None)).model
    ids = probe_of(model, 1, 32, seed=1)
    wanted, found = (outputs_of(m.eval(), ids.to(m.device)).cpu() for m in (model, written))
    difference = (wanted - found).abs().max().item()
    if model.dtype == written.dtype:
        difference = max(difference, largest_difference(model, written))  # towers have no part in the outputs of a text
    if not difference <= 1e-4 * max(1.0, wanted.abs().max().item()):
        raise CheckpointError(
            f'the written model differs from the merged one by {difference:.2e};', 'nothing was kept; please report this'
        )
    return difference

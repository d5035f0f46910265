"""Training the weights themselves, whole or in part; stored as a plain transformers model."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import torch

from swift.core.errors import CheckpointError, ModelError
from swift.core.heads import unused_names
from swift.core.log import get_logger
from swift.tuners.modules import activate_parameters, freeze_parameters
from swift.tuners.parts import freeze_parts

if TYPE_CHECKING:
    from swift.arguments.tuner import TunerArgs

logger = get_logger(__name__)


class Full:
    """`--tuner_type full`."""

    @staticmethod
    def prepare(model: Any, args: TunerArgs, info: Any = None) -> Any:
        """Freeze and unfreeze what the arguments say: parts, ratio and names freeze first, then trainable_* has the last word.

        float16 weights become float32 (float16 gradients of float16 weights can't be scaled); bfloat16 stays.
        """
        if getattr(model, 'is_quantized', False) or (info is not None and info.quant_method):
            raise ModelError('a quantised model can not be trained in full;', 'use --tuner_type lora.')
        model.requires_grad_(True)
        for name in unused_names(model):  # gets no gradient, which processes in step would wait for
            model.get_submodule(name).requires_grad_(False)
        if info is not None and info.is_multimodal:
            freeze_parts(model, args.freeze_llm, args.freeze_vit, args.freeze_aligner)
        freeze_parameters(model, args.freeze_parameters_ratio, args.freeze_parameters, args.freeze_parameters_regex)
        activate_parameters(model, args.trainable_parameters, args.trainable_parameters_regex)
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelError('every parameter is frozen;', 'loosen --freeze_* or name some in --trainable_parameters.')
        if any(p.requires_grad and p.dtype == torch.float16 for p in model.parameters()):
            logger.info('float16 weights are trained as float32 (pass --torch_dtype bfloat16 for less memory)')
            model.float()
        return model

    @staticmethod
    def save(
        model: Any,
        directory: str,
        *,
        processor: Any = None,
        state_dict: dict | None = None,
        dtype: Any = None,
        max_shard_size: str = '5GB',
    ) -> None:
        """Write safetensors, config, generation config and tokenizer so that plain transformers loads them.

        `dtype` rounds the stored weights (None: as they are); `state_dict` replaces the model's own (sharded training);
        no file is larger than `max_shard_size`.
        """
        os.makedirs(directory, exist_ok=True)
        weights = state_dict
        if dtype is not None:
            weights = {
                name: value.to(dtype) if value.is_floating_point() else value
                for name, value in (model.state_dict() if state_dict is None else state_dict).items()
            }
        generation = getattr(model, 'generation_config', None)
        with _set_aside(model, 'generation_config', generation):
            model.save_pretrained(directory, state_dict=weights, max_shard_size=max_shard_size)
        if dtype is not None:
            _write_dtype(directory, dtype)
        _copy_beside(model, directory, generation)
        if processor is not None:
            processor.save_pretrained(directory)

    @staticmethod
    def load(model: Any, directory: str, *, trainable: bool = True, name: str = 'default') -> Any:
        """Refuse: a fully trained checkpoint is a model, not something to put on one."""
        raise CheckpointError(f'{directory} holds a whole model;', 'pass it with --model.')


class _set_aside:
    """Save without the generation config's own writer, which refuses (and so loses) configs that loading accepts."""

    def __init__(self, model: Any, name: str, value: Any):
        self.model, self.name, self.value = model, name, value

    def __enter__(self) -> None:
        if self.value is not None:
            from transformers import GenerationConfig

            setattr(self.model, self.name, GenerationConfig())

    def __exit__(self, *_: Any) -> None:
        if self.value is not None:
            setattr(self.model, self.name, self.value)


def _copy_beside(model: Any, directory: str, generation: Any) -> None:
    """The base's generation_config.json as it was (else the model's), and the Python files of remote code."""
    import json

    target = os.path.join(directory, 'generation_config.json')
    if os.path.isfile(target):
        os.remove(target)
    home = getattr(model, 'name_or_path', '') or ''
    original = os.path.join(home, 'generation_config.json')
    if home and os.path.isfile(original):
        shutil.copyfile(original, target)
    elif generation is not None:
        with open(target, 'w', encoding='utf-8') as file:
            json.dump(generation.to_diff_dict(), file, indent=2, default=str)
    if home and os.path.isdir(home) and getattr(model.config, 'auto_map', None):
        for entry in os.listdir(home):
            if entry.endswith('.py') and not os.path.exists(os.path.join(directory, entry)):
                shutil.copyfile(os.path.join(home, entry), os.path.join(directory, entry))


def _write_dtype(directory: str, dtype: torch.dtype) -> None:
    import json

    path = os.path.join(directory, 'config.json')
    with open(path, encoding='utf-8') as file:
        config = json.load(file)
    config.pop('torch_dtype', None)
    config['dtype'] = str(dtype).removeprefix('torch.')
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(config, file, indent=2, ensure_ascii=False)
        file.write('\n')

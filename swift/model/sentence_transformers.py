"""The files by which sentence-transformers knows how a model makes a vector of a text: read where a model has them, written for
embedding models, so that `SentenceTransformer(folder)` and vLLM encode as the model was trained.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from swift.core.errors import ModelError
from swift.core.log import get_logger
from swift.model.info import ModelInfo, read_json

logger = get_logger(__name__)

_MODES = {'last': 'pooling_mode_lasttoken', 'mean': 'pooling_mode_mean_tokens', 'cls': 'pooling_mode_cls_token'}
_WORDS = {'lasttoken': 'last', 'last_token': 'last', 'last': 'last', 'mean': 'mean', 'cls': 'cls'}
_OTHERS = (
    'pooling_mode_max_tokens', 'pooling_mode_mean_sqrt_len_tokens', 'pooling_mode_weightedmean_tokens',
)  # fmt: skip


_FILES = (
    'modules.json', '1_Pooling/config.json', '2_Normalize/config.json', 'sentence_bert_config.json', 'config_sentence_transformers.json',
)  # fmt: skip


def default_pooling(info: ModelInfo) -> str:
    """How a model makes one vector of a text: what its files say, else `last` for decoders and `mean` for encoders."""
    for folder in (*reversed(info.adapters), info.model_dir):
        if found := stored_pooling(folder):
            return found
    return 'mean' if is_encoder(info) else 'last'


def is_encoder(info: ModelInfo) -> bool:
    """Whether every token of a model sees the whole text (the BERT family), by its configuration."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if info.config.get('is_decoder') or any('CausalLM' in name or 'LMHead' in name for name in info.architectures):
        return False
    return info.config_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def stored_pooling(folder: str) -> str | None:
    """The pooling that modules.json and the folder it names say; None without them. Raises ModelError for a kind unknown here."""
    path = os.path.join(folder, 'modules.json')
    if not os.path.isfile(path):
        return None
    with open(path, encoding='utf-8') as file:
        modules = json.load(file)
    kinds = {str(module.get('type', '')).rpartition('.')[2]: module.get('path', '') for module in modules}
    for kind in kinds.keys() - {'Transformer', 'Pooling', 'Normalize'}:
        logger.warning('%s: its %s layer is not part of the trained model, which ends with the pooling', folder, kind)
    if 'Pooling' not in kinds:
        return None
    config = read_json(os.path.join(folder, kinds['Pooling'], 'config.json'))
    chosen = [how for how, name in _MODES.items() if config.get(name)]
    others = [name for name in _OTHERS if config.get(name)]
    if 'pooling_mode' in config:
        words = config['pooling_mode'] if isinstance(config['pooling_mode'], list) else [config['pooling_mode']]
        chosen = [_WORDS[word] for word in words if word in _WORDS]
        others = [word for word in words if word not in _WORDS]
    if len(chosen) == 1 and not others:
        return chosen[0]
    raise ModelError(f'{folder} pools by {", ".join([*chosen, *others]) or "nothing known"};', 'give --pooling last, mean or cls')


def write_files(folder: str, *, pooling: str, hidden_size: int, max_length: int | None) -> None:
    """modules.json and what it names: the model, `pooling` over its last hidden states, vectors of length 1."""
    package = 'sentence_transformers.models'
    modules = [('', 'Transformer'), ('1_Pooling', 'Pooling'), ('2_Normalize', 'Normalize')]
    _write(folder, 'modules.json', [
        {'idx': number, 'name': str(number), 'path': path, 'type': f'{package}.{kind}'} for number, (path, kind) in enumerate(modules)
    ])  # fmt: skip
    modes = {name: how == pooling for how, name in _MODES.items()} | dict.fromkeys(_OTHERS, False)
    _write(folder, '1_Pooling/config.json', {'word_embedding_dimension': hidden_size, **modes, 'include_prompt': True})
    _write(folder, '2_Normalize/config.json', {})
    _write(folder, 'sentence_bert_config.json', {'max_seq_length': max_length, 'do_lower_case': False})
    _write(folder, 'config_sentence_transformers.json', {'prompts': {}, 'default_prompt_name': None, 'similarity_fn_name': 'cosine'})


def copy_files(source: str, folder: str) -> None:
    """Take the files along from one folder to another, where there are any."""
    for name in _FILES:
        if os.path.isfile(path := os.path.join(source, name)):
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            shutil.copyfile(path, os.path.join(folder, name))


def _write(folder: str, name: str, value: Any) -> None:
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(value, file, indent=2)
        file.write('\n')


def end_with(tokenizer: Any, token: str) -> None:
    """Let the tokenizer itself put `token` after every text, as it was put in training; a slow tokenizer is left as it is."""
    backend = getattr(tokenizer, 'backend_tokenizer', None)
    number = tokenizer.convert_tokens_to_ids(token)
    if backend is None:
        logger.warning('this tokenizer can not be told to end texts with %r: append it yourself where the model is used', token)
        return
    from tokenizers.processors import Sequence, TemplateProcessing

    ids = _put_before(tokenizer)
    begin = tokenizer.convert_ids_to_tokens(ids)
    single, second = ([*begin, text, token] for text in ('$A', '$B'))
    specials = {token: number, **dict(zip(begin, ids, strict=True))}
    closing = TemplateProcessing(single=single, pair=[*single, *second], special_tokens=list(specials.items()))
    backend.post_processor = Sequence([*_offsets(backend), closing])


def _put_before(tokenizer: Any) -> list[int]:
    """The ids that a tokenizer puts in front of every text."""
    bare, full = tokenizer('a', add_special_tokens=False)['input_ids'], tokenizer('a')['input_ids']
    return full[: next((at for at in range(len(full)) if full[at : at + len(bare)] == bare), 0)]


def _offsets(backend: Any) -> list[Any]:
    """The post-processors of a tokenizer that put no special tokens around a text, which a template replaces: two of them in a row
    would put them around each other's."""
    from tokenizers.processors import ByteLevel

    own = json.loads(backend.to_str())['post_processor'] or {}
    parts = own['processors'] if own.get('type') == 'Sequence' else [own]
    return [
        ByteLevel(add_prefix_space=part['add_prefix_space'], trim_offsets=part['trim_offsets'], use_regex=part['use_regex'])
        for part in parts
        if part.get('type') == 'ByteLevel'
    ]

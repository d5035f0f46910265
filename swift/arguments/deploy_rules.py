"""Checks of the flags of `swift deploy`, and adapters that a JSON file names."""

from __future__ import annotations

import json
import os

from swift.arguments.deploy import named
from swift.arguments.rules import NoEffect, Values, flags

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
"""Addresses that only this machine reaches."""

_GENERATION = 'max_new_tokens temperature top_k top_p repetition_penalty num_beams stop_words response_prefix max_logprobs'


def _scores(v: Values) -> bool:
    return v['task_type'] not in ('causal_lm', 'multi_task')


DEPLOY_NO_EFFECT: tuple[NoEffect, ...] = (
    NoEffect(flags('seed logprobs top_logprobs'), lambda v: True, 'in swift deploy, where each request asks for its own', ('deploy',)),
    NoEffect(flags('loss_scale padding_free'), lambda v: True, 'in swift deploy, which trains nothing', ('deploy',)),
    NoEffect(flags('load_data_args'), lambda v: True, 'in swift deploy, which reads no data', ('deploy',)),
    NoEffect(flags('merge_lora'), lambda v: not v['adapters'], 'without --adapters', ('deploy',)),
    NoEffect(flags(_GENERATION), _scores, 'with a model that generates nothing', ('deploy',)),
    NoEffect(flags('pooling'), lambda v: v['task_type'] != 'embedding', 'unless --task_type is embedding', ('deploy',)),
    NoEffect(
        flags('positive_token negative_token'),
        lambda v: v['task_type'] != 'generative_reranker',
        'unless --task_type is generative_reranker',
        ('deploy',),
    ),
    NoEffect(
        flags('num_labels class_names problem_type'),
        lambda v: v['task_type'] not in ('seq_cls', 'token_cls'),
        'with a model without classes',
        ('deploy',),
    ),
    NoEffect(flags('top_k top_p'), lambda v: v['num_beams'] > 1, 'with --num_beams, which samples nothing', ('deploy',)),
)


def deploy_mistakes(v: Values) -> list[str]:
    """What a server can't be started with."""
    found = []
    if v['infer_backend'] == 'client':
        found.append('--infer_backend client asks another server; swift deploy serves a model of its own')
    if v['local_only'] and v['host'] not in (None, *LOOPBACK):
        found.append(f'--local_only true listens on 127.0.0.1; drop it or --host {v["host"]}')
    for given, other in (('ssl_keyfile', 'ssl_certfile'), ('ssl_certfile', 'ssl_keyfile')):
        if v[given] and not v[other]:
            found.append(f'--{given} needs --{other}: a key and its certificate')
        if v[given] and not os.path.isfile(v[given]):
            found.append(f'--{given}: no such file: {v[given]}')
    folder = v['allowed_local_media_path']
    if folder and not os.path.isdir(os.path.expanduser(folder)):
        found.append(f'--allowed_local_media_path: no such folder: {folder}')
    if v['served_model_name'] in [name for name, _ in map(named, v['adapters']) if name is not None]:
        found.append(f'--served_model_name {v["served_model_name"]} is the name of an adapter too')
    return found + adapter_mistakes(v)


def adapter_mistakes(v: Values) -> list[str]:
    """Adapters that are chosen by name have one each."""
    found = []
    names = [named(adapter) for adapter in v['adapters']]
    unnamed = [path for name, path in names if name is None]
    if len(unnamed) > 1:
        found.append(f'--adapters: {unnamed[1]} has no name; write name=path for every adapter that requests choose by name')
    listed = [name for name, _ in names if name is not None]
    if twice := next((name for name in listed if listed.count(name) > 1), None):
        found.append(f'--adapters: two adapters have the name {twice}')
    if v['merge_lora'] and listed:
        found.append('--merge_lora true makes one model; adapters with names are chosen by request: drop it or the names')
    return found


def listed_adapters(words: list[str]) -> list[str]:
    """`name=path` for the entries of JSON files ({"name": "path", …}) among adapters; the others as they are.

    Raises ValueError for a file that holds something else.
    """
    found: list[str] = []
    for word in words:
        if not word.endswith('.json'):
            found.append(word)
            continue
        try:
            with open(word, encoding='utf-8') as stream:
                content = json.load(stream)
        except (OSError, ValueError) as error:
            raise ValueError(f'{word} cannot be read ({error}); it should hold {{"name": "path of an adapter", …}}') from None
        if not isinstance(content, dict) or not content or not all(isinstance(path, str) for path in content.values()):
            raise ValueError(f'{word} should hold {{"name": "path of an adapter", …}}')
        found += [f'{name}={path}' for name, path in content.items()]
    return found

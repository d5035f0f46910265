"""`--config file.yaml|json`: flags from a file."""

from __future__ import annotations

import json
import os
from typing import Any

SUFFIXES = ('.yaml', '.yml', '.json')
_NOT_FLAGS = ('command', 'sources', 'versions')


def read_config(path: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. An args.json of an earlier run gives the values that were set there, not those derived.

    Raises ValueError with the reason; the caller puts the flag's name in front.
    """
    if not os.path.isfile(path):
        raise ValueError(f'no such file: {path}')
    with open(path, encoding='utf-8') as file:
        text = file.read()
    content = _json(path, text) if path.endswith('.json') else _yaml(path, text)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f'{path} must hold flags and values, not {type(content).__name__}')
    if 'sources' in content and 'command' in content:
        given = {name for name, source in content['sources'].items() if source != 'derived'}
        return {name: value for name, value in content.items() if name in given and name not in _NOT_FLAGS}
    return {str(name).lstrip('-'): value for name, value in content.items()}


def _json(path: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}:{error.lineno}: {error.msg}') from None


def _yaml(path: str, text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_loader(yaml))
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f'{path}:{mark.line + 1}' if mark else path
        raise ValueError(f'{place}: {getattr(error, "problem", None) or error}') from None


def _yaml_loader(yaml: Any) -> type:
    """SafeLoader with YAML 1.2's scalars: `1e-5` is a number, `no` and `on` are words."""
    import re

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            first: [
                (tag, pattern)
                for tag, pattern in resolvers
                if tag not in ('tag:yaml.org,2002:float', 'tag:yaml.org,2002:bool')
            ]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    number = re.compile(
        r'^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$'
    )
    Loader.add_implicit_resolver('tag:yaml.org,2002:float', number, list('-+0123456789.'))
    Loader.add_implicit_resolver(
        'tag:yaml.org,2002:bool', re.compile(r'^(true|True|TRUE|false|False|FALSE)$'), list('tTfF')
    )
    return Loader

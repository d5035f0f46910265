"""Which files of a folder or repository belong to a subset and a split.

The card (README.md) decides where it declares `configs`; else folder and file names do, as the hubs have it:
`subset/train-00000-of-00002.parquet`, `test.jsonl`, `data/validation/x.json`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

from swift.core.errors import DatasetError
from swift.dataset.files import FORMATS, file_format
from swift.dataset.media import kind_of

SPLITS = {
    'train': ('train', 'training'),
    'validation': ('validation', 'valid', 'val', 'dev'),
    'test': ('test', 'testing', 'eval', 'evaluation'),
}
_NOT_DATA = {
    'dataset_info.json', 'dataset_infos.json', 'dataset_dict.json', 'state.json', 'configuration.json', 'config.json',
    'requirements.txt', 'license.txt', 'readme.txt', 'metadata.json',
}  # fmt: skip
_ABOUT_MEDIA = ('metadata.jsonl', 'metadata.csv', 'metadata.parquet')
_PREFERRED = ('.parquet', '.arrow', '.jsonl', '.ndjson', '.json', '.csv', '.tsv', '.txt')


def data_files(paths: Sequence[str]) -> list[str]:
    """Paths that hold rows, sorted. Where media lie beside a `metadata.jsonl`, only such files do."""
    kept = []
    for path in paths:
        parts = path.split('/')
        if not any(part.startswith('.') for part in parts) and parts[-1].lower() not in _NOT_DATA and file_format(path):
            kept.append(path)
    about = [path for path in kept if is_about_media(path)]
    return sorted(about if about and any(map(kind_of, paths)) else kept)


def is_about_media(path: str) -> bool:
    """Whether a file is one that names the media beside it."""
    return path.split('/')[-1].lower() in _ABOUT_MEDIA


def select_files(
    paths: Sequence[str], subset: str, splits: Sequence[str], name: str, configs: list[dict] | None = None, one_format: bool = True
) -> list[str]:
    """The files (relative, `/`-separated) of `subset` and the first of the wanted `splits` that are there.

    `one_format`: where the same rows lie there in several formats, take one. Raises DatasetError.
    """
    files = data_files(paths)
    if not files:
        raise DatasetError(f'{name} holds no data files;', f'known: {" ".join(FORMATS)}')
    if configs:
        return _by_card(files, subset, splits, name, configs)
    if subset != 'default':
        files = _of_subset(files, subset, name)
    if one_format:
        best = min((file_format(path) for path in files), key=_PREFERRED.index)
        files = [path for path in files if file_format(path) == best]
    by_split: dict[str, list[str]] = {}
    for path in files:
        by_split.setdefault(split_of(path) or '', []).append(path)
    if set(by_split) == {''}:
        return by_split['']
    chosen = [path for split in splits for path in by_split.get(canonical(split), [])]
    if not chosen:
        found = ', '.join(sorted(split for split in by_split if split)) or 'none'
        raise DatasetError(f'{name} has no split {"/".join(splits)};', f'found: {found}')
    return chosen


def canonical(split: str) -> str:
    """The usual name of a split."""
    return next((key for key, names in SPLITS.items() if split.lower() in names), split)


def split_of(path: str) -> str | None:
    """The split that a path names, in its file name or else in a folder's, None when it names none."""
    parts = path.split('/')
    words = [re.split(r'[^a-z]+', parts[-1].lower()), *([part.lower()] for part in reversed(parts[:-1]))]
    for group in words:
        for key, names in SPLITS.items():
            if any(word in names for word in group):
                return key
    return None


def _of_subset(files: list[str], subset: str, name: str) -> list[str]:
    folder = [path for path in files if subset in path.split('/')[:-1]]
    named = [path for path in files if re.search(rf'(^|[^A-Za-z0-9]){re.escape(subset)}([^A-Za-z0-9]|$)', path)]
    if not folder and not named:
        folders = sorted({path.split('/')[0] for path in files if '/' in path})
        raise DatasetError(f'{name} has no subset {subset!r};', f'its folders: {", ".join(folders[:20]) or "none"}')
    return folder or named


def card_configs(readme: str) -> list[dict] | None:
    """The `configs` of a card's YAML head, None when it has none."""
    found = re.match(r'---\s*\n(.*?)\n---', readme, re.S)
    if not found:
        return None
    import yaml

    try:
        head = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return None
    configs = head.get('configs') if isinstance(head, dict) else None
    return [entry for entry in configs if isinstance(entry, dict) and 'data_files' in entry] if configs else None


def _by_card(files: list[str], subset: str, splits: Sequence[str], name: str, configs: list[dict]) -> list[str]:
    names = [str(entry.get('config_name', 'default')) for entry in configs]
    if subset in names:
        entry = configs[names.index(subset)]
    elif subset == 'default' and (len(configs) == 1 or any(entry.get('default') for entry in configs)):
        entry = next((entry for entry in configs if entry.get('default')), configs[0])
    else:
        raise DatasetError(f'{name} has no subset {subset!r};', f'choose one: {name}:{{{",".join(names)}}}')
    patterns = _patterns(entry['data_files'])
    chosen = [
        path
        for split in splits
        for pattern in patterns.get(canonical(split), [])
        for path in files
        if fnmatch.fnmatch(path, pattern.replace('**/', '*'))
    ]
    if not chosen:
        raise DatasetError(f'{name}:{subset} has no split {"/".join(splits)};', f'found: {", ".join(sorted(patterns))}')
    return list(dict.fromkeys(chosen))


def _patterns(declared: Any) -> dict[str, list[str]]:
    """split → patterns, from the three ways a card may write them."""
    if isinstance(declared, str):
        return {'train': [declared]}
    if isinstance(declared, dict):
        declared = [{'split': split, 'path': path} for split, path in declared.items()]
    made: dict[str, list[str]] = {}
    for item in declared:
        item = {'split': 'train', 'path': item} if isinstance(item, str) else item
        paths = [item['path']] if isinstance(item['path'], str) else item['path']
        made.setdefault(canonical(str(item.get('split', 'train'))), []).extend(paths)
    return made

"""`swift doctor`: what this machine has, and what is missing for what."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from typing import Any

import swift
from swift.core.errors import SwiftError

CORE = ('torch', 'transformers', 'peft', 'accelerate', 'huggingface_hub', 'modelscope', 'tokenizers', 'safetensors', 'numpy', 'pyarrow')
"""Distributions without which nothing trains."""

OPTIONAL = {
    'flash_attn': '--attn_impl flash_attn on NVIDIA GPUs; pip install flash-attn',
    'tensorboard': '--report_to tensorboard',
    'wandb': '--report_to wandb; pip install wandb',
    'mlflow': '--report_to mlflow; pip install mlflow',
    'swanlab': '--report_to swanlab; pip install swanlab',
    'trackio': '--report_to trackio; pip install trackio',
}
"""Import name → what it is for and how to get it."""

MEDIA = {
    'pillow': 'images; pip install pillow',
    'av': 'videos, and sounds that soundfile does not read; pip install av',
    'soundfile': 'sounds; pip install soundfile',
    'pydicom': 'DICOM images; pip install "swift-finetune[dicom]"',
}
"""Distribution → what it reads and how to get it."""

KNOWN_TROUBLE = {
    'torchvision': 'a torchvision built for CUDA beside a CPU torch breaks `import transformers`; pip uninstall torchvision',
}


def doctor_main(args: Any = None) -> dict[str, Any]:
    """Print the state of the environment and return it as a dict; raises SwiftError when training can't work.

    `args` may be None, or a list without entries: the command takes no flags.
    """
    if isinstance(args, (list, tuple)) and args:
        raise SwiftError(f'swift doctor takes no arguments, got: {" ".join(map(str, args))};', 'run: swift doctor')
    report: dict[str, Any] = {
        'swift': swift.__version__,
        'python': f'{platform.python_version()} ({sys.executable})',
        'system': f'{platform.system()} {platform.release()}, {os.cpu_count()} CPU cores, {_memory()}',
        'packages': {name: _version(name) for name in CORE},
        'optional': {name: _version(name) for name in OPTIONAL},
        'media': {name: _version(name) for name in MEDIA},
        'devices': [],
        'cache': _folder(os.environ.get('SWIFT_CACHE') or os.path.expanduser('~/.cache/swift')),
        'problems': [],
    }
    report['problems'] += [f'{name} is not installed; pip install {name}' for name in CORE if not report['packages'][name]]
    report['devices'] = _devices(report)
    report['torchvision'] = _torchvision(report)
    _print(report)
    if report['problems']:
        raise SwiftError(f'{len(report["problems"])} problem(s) found: ' + ' | '.join(report['problems']))
    return report


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        import psutil

        memory = psutil.virtual_memory()
        return f'{memory.total / 2**30:.0f} GiB memory ({memory.available / 2**30:.0f} free)'
    except ImportError:
        return 'memory unknown'


def _folder(path: str) -> str:
    existing = path
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing) or '/'
    writable = 'writable' if os.access(existing, os.W_OK) else 'NOT writable'
    return f'{path} ({writable}, {shutil.disk_usage(existing).free / 2**30:.0f} GiB free)'


def _devices(report: dict[str, Any]) -> list[str]:
    try:
        import torch
    except ImportError as error:
        report['problems'].append(f'torch does not import: {error}')
        return []
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            bf16 = 'bf16' if torch.cuda.is_bf16_supported() else 'no bf16'
            found.append(f'cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}')
    if torch.backends.mps.is_available():
        found.append('mps')
    try:
        import transformers.models.auto.modeling_auto  # noqa: F401  (a broken torchvision shows here)
    except Exception as error:
        cause = KNOWN_TROUBLE['torchvision'] if _version('torchvision') and 'torchvision' in str(error) else str(error)
        report['problems'].append(f'transformers does not import: {cause}')
    return found or [f'cpu, {torch.get_num_threads()} threads']


def _torchvision(report: dict[str, Any]) -> str:
    """Which image transforms processors get: an installed torchvision, or swift's own."""
    from swift.core.stand_in import VERSION, in_use

    try:
        import torchvision
    except ImportError as error:
        report['problems'].append(f'torchvision does not import: {error}')
        return 'none'
    if not in_use():
        return f'{torchvision.__version__} as installed'
    why = f'the installed {version} does not load' if (version := _version('torchvision')) else 'none is installed'
    return f'stand-in of swift with the numbers of {VERSION} ({why}; nothing is missing for that)'


def _print(report: dict[str, Any]) -> None:
    print(f'swift {report["swift"]}')
    print(f'python    {report["python"]}')
    print(f'system    {report["system"]}')
    for device in report['devices']:
        print(f'device    {device}')
    print(f'cache     {report["cache"]}')
    print('packages  ' + ', '.join(f'{name} {version or "MISSING"}' for name, version in report['packages'].items()))
    for name, version in report['optional'].items():
        print(f'  {"have" if version else "no  "} {name} {version or ""}'.rstrip() + ('' if version else f': needed for {OPTIONAL[name]}'))
    print(f'media     torchvision: {report["torchvision"]}')
    for name, version in report['media'].items():
        print(f'  have {name} {version}: {MEDIA[name].split(";")[0]}' if version else f'  no   {name}: needed for {MEDIA[name]}')
    for problem in report['problems']:
        print(f'PROBLEM   {problem}')
    if not report['problems']:
        print('Ready to train.')

"""What this process computes on, and how much memory it has used."""

from __future__ import annotations

from typing import Any

import torch

from swift.core.dist import local_rank

GIB = 2**30


def device_type() -> str:
    """`cuda`, `npu`, `xpu`, `mps` or `cpu`: what training will use when nothing else is asked for."""
    if torch.cuda.is_available():
        return 'cuda'
    for name in ('npu', 'xpu'):
        module = getattr(torch, name, None)
        if module is not None and module.is_available():
            return name
    return 'mps' if torch.backends.mps.is_available() else 'cpu'


def current_device(use_cpu: bool = False) -> torch.device:
    """The device of this process: the one of its local rank where there are several."""
    kind = 'cpu' if use_cpu else device_type()
    return torch.device(kind) if kind in ('cpu', 'mps') else torch.device(kind, local_rank())


def supports_bf16(device: torch.device | str | None = None) -> bool:
    """Whether bfloat16 arithmetic is native there (CPU: yes, computed in float32 where the CPU lacks it)."""
    kind = torch.device(device).type if device is not None else device_type()
    if kind == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind in ('npu', 'xpu', 'cpu')


def peak_memory() -> float:
    """GiB at the highest point so far: of the device's allocator, or of the process (resident set) on CPU."""
    module = _module(device_type())
    if module is not None:
        return module.max_memory_reserved() / GIB
    if device_type() == 'mps':
        return torch.mps.driver_allocated_memory() / GIB
    import sys

    if sys.platform == 'win32':
        import psutil

        return psutil.Process().memory_info().peak_wset / GIB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / GIB


def device_facts() -> dict[str, Any]:
    """Name, count and memory (GiB) of the devices, for messages and reports."""
    kind = device_type()
    module = _module(kind)
    facts: dict[str, Any] = {'type': kind, 'count': module.device_count() if module else 1, 'bf16': supports_bf16()}
    if module is not None:
        properties = module.get_device_properties(0)
        facts['name'] = properties.name
        facts['memory'] = round(properties.total_memory / GIB, 1)
    return facts


def _module(kind: str) -> Any:
    """torch.cuda, torch.npu or torch.xpu; None for devices without an allocator of their own."""
    return getattr(torch, kind) if kind in ('cuda', 'npu', 'xpu') else None

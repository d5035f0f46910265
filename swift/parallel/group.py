"""The processes of a job talking to each other: starting the group, waiting for each other, agreeing on a value.

Every function is a no-op in a single process, so callers need no `if`.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

from swift.core.dist import is_dist, rank, world_size
from swift.core.errors import SwiftError
from swift.core.log import get_logger

RENDEZVOUS_SECONDS = 600
"""How long a process waits for the others at the start, whatever --ddp_timeout says about later."""


def start_group(*, device_type: str, backend: str | None = None, timeout: float = 18_000_000) -> bool:
    """Join the processes that torchrun started; True when there are several.

    `device_type` is `cpu`, `cuda`, `npu`, …; `backend` None picks gloo for cpu and the device's own otherwise. `timeout` in
    seconds (--ddp_timeout) limits every later collective. A process that finds no others gives up after ten minutes with a hint.
    """
    import torch.distributed as dist

    if not is_dist() or world_size() == 1:
        return False
    if dist.is_initialized():
        return True
    chosen = backend or default_backend(device_type)
    if not dist.is_backend_available(chosen.split(',')[0].split(':')[-1]):
        raise SwiftError(f'--ddp_backend {chosen} is not available in this build of torch;', 'leave it unset or use gloo')
    where = f'{os.environ.get("MASTER_ADDR")}:{os.environ.get("MASTER_PORT")}'
    limit = datetime.timedelta(seconds=min(timeout, 10_000_000))
    try:
        store, me, size = next(dist.rendezvous('env://', timeout=datetime.timedelta(seconds=RENDEZVOUS_SECONDS)))
        store.set_timeout(limit)
        dist.init_process_group(chosen, store=store, rank=me, world_size=size, timeout=limit)
    except (dist.DistError, TimeoutError, RuntimeError) as error:
        raise SwiftError(
            f'process {rank()} of {world_size()} found no others at {where} ({type(error).__name__});',
            'check that every process was started with the same WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and that the port is open',
        ) from error
    get_logger().info('%d processes, backend %s', world_size(), chosen)
    return True


def default_backend(device_type: str) -> str:
    """The collective library that fits a device: gloo on cpu, nccl on cuda, …"""
    return {'cuda': 'nccl', 'npu': 'hccl', 'xpu': 'xccl', 'hpu': 'hccl', 'mlu': 'cncl'}.get(device_type, 'gloo')


def active() -> bool:
    """Whether several processes are connected."""
    if not is_dist():
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def barrier() -> None:
    """Wait until every process is here."""
    if active():
        import torch.distributed as dist

        dist.barrier()


def broadcast(value: Any) -> Any:
    """The value of the first process, on every process (anything that can be pickled)."""
    if not active():
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """The values of all processes in rank order, on every process."""
    if not active():
        return [value]
    import torch.distributed as dist

    box: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def gather_rows(value: Any) -> Any:
    """A tensor [n, …] of every process (n may differ), joined along the first dimension in rank order, on every process."""
    if not active():
        return value
    import torch
    import torch.distributed as dist

    sizes = gather(value.shape[0])
    padded = value.new_zeros(max(sizes), *value.shape[1:])
    padded[: value.shape[0]] = value
    box = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(box, padded)
    return torch.cat([part[:size] for part, size in zip(box, sizes, strict=True)])


def first_error(error: BaseException | None) -> None:
    """Raise on every process when one of them has an error, so that nobody waits for a process that is gone.

    Call it with this process's own error or None; the process's own error is raised as it is, another's as a SwiftError.
    """
    messages = gather(None if error is None else f'{type(error).__name__}: {error}')
    if error is not None:
        raise error
    for number, message in enumerate(messages):
        if message is not None:
            raise SwiftError(f'process {number} failed: {message}')


def stop_group() -> None:
    """Leave the group; called once at the end of a command so that torch does not warn."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()

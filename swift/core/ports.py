"""Ports of this machine."""

from __future__ import annotations

import socket


def free_port(host: str = '127.0.0.1') -> int:
    """A TCP port of an address of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]

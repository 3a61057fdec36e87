"""A connection to a Ray cluster: an existing one, or one that is started on this machine for the block."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmrobust.errors import UsageError

OURS = "mmrobust.errors."
"""How a traceback names an error of this package."""
SPARE_CPUS = 2
"""CPUs for the tasks that read and split blocks: actors that held every CPU would wait for them forever."""
_PROBE_SECONDS = 10.0


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """Yield the module ``ray``, connected to a cluster; an existing connection is reused and left open.

    Without an ``address``, one is started on this machine, of so many ``cpus`` (``None``: as many as Ray finds), and
    stopped after the block.

    Raises:
        UsageError: Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning about a future default
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns about its own deprecated settings while it reads their defaults
        try:
            import ray
            import ray.data
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'mmrobust[ray]'") from None
        connect = not ray.is_initialized()
        local: dict[str, Any] = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        try:
            if connect:
                _probe(address)
                ray.init(log_to_driver=False, logging_level="ERROR", **({"address": address} if address else local))
        except (ConnectionError, RuntimeError, ValueError) as cause:
            raise UsageError(f"--ray-address {address}: no Ray cluster answers ({reason(cause)})") from cause
        try:
            yield ray
        finally:
            if connect:
                ray.shutdown()


def cpus_per_gpu(ray: Any) -> int:
    """The CPUs for work on one GPU, which decodes in as many threads: a share of the cores of the poorest node.

    Raises:
        UsageError: the cluster has no GPU; work that needs one would wait forever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
    if not nodes:
        raise UsageError("--engine ray: Ray knows of no GPU in the cluster; use --device cpu or --engine local")
    return max(1, min(int((node.get("CPU", 0) - SPARE_CPUS) // node["GPU"]) for node in nodes))


def _probe(address: str | None) -> None:
    """Raise a ``UsageError`` if nothing listens at ``address``: Ray itself would retry for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):  # auto, or another form of address: left to Ray
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError) as cause:
        raise UsageError(f"--ray-address {address}: no Ray cluster answers ({reason(cause)})") from cause


def reason(cause: BaseException) -> str:
    """Return the message of our own error in a worker, or the last line: Ray puts a whole traceback before either."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith(OURS)]  # Ray may also add advice behind it
    return ours[-1].partition(": ")[2] if ours else lines[-1] if lines else type(cause).__name__

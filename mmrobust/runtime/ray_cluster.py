"""Ray, connected: a cluster that is named, or one that is started on this machine and ended with the block."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmrobust.errors import UsageError

_PROBE_SECONDS = 10.0


@contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """The module ``ray``, connected to a cluster; a connection that there is already is used and kept.

    Args:
        address: of the cluster; ``None``: one is started on this machine, and ended with the block.
        cpus: of a cluster that is started here; ``None``: what Ray finds.

    Raises:
        UsageError: Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns of what it will once do
    with warnings.catch_warnings():
        # Ray warns of its own deprecated settings while it reads their defaults; nothing here can mend that.
        warnings.simplefilter("ignore")
        try:
            import ray
            import ray.data
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'mmrobust[ray]'") from None
        mine = not ray.is_initialized()
        here: dict[str, Any] = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        try:
            if mine:
                _probe(address)
                ray.init(log_to_driver=False, logging_level="ERROR", **({"address": address} if address else here))
        except (ConnectionError, RuntimeError, ValueError) as cause:
            raise UsageError(f"--ray-address {address}: no Ray cluster answers ({reason(cause)})") from cause
        try:
            yield ray
        finally:
            if mine:
                ray.shutdown()


def _probe(address: str | None) -> None:
    """Raise where nobody listens at ``address``: Ray itself would try for minutes.

    Raises:
        UsageError: nobody does.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):  # auto, or an address of another kind: for Ray to find
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError) as cause:
        raise UsageError(f"--ray-address {address}: no Ray cluster answers ({reason(cause)})") from cause


def reason(cause: BaseException) -> str:
    """The last line that says something: Ray puts the worker's whole traceback before it."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__

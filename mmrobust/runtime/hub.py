"""Whether the Hugging Face Hub can be reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 5.0
"""Timeout for a connection to the Hub."""


@contextmanager
def cache_only() -> Iterator[bool]:
    """Let Hugging Face's libraries use only their cache in the block; yields whether they would use the network."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield not offline
    finally:
        constants.HF_HUB_OFFLINE = offline


def go_offline_if_unreachable() -> None:
    """Make Hugging Face's libraries use only their cache if the Hub does not answer.

    They would otherwise retry for a minute, with a warning each time. Behind a proxy nothing can be tested or changed.
    """
    import urllib.parse
    import urllib.request

    from huggingface_hub import constants

    endpoint = urllib.parse.urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or not endpoint.hostname or urllib.request.getproxies().get(endpoint.scheme):
        return
    try:
        port = endpoint.port or {"http": 80}.get(endpoint.scheme, 443)
        socket.create_connection((endpoint.hostname, port), timeout=SECONDS).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True

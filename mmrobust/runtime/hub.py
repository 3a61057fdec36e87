"""Whether the Hugging Face Hub is in reach."""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request

SECONDS = 5.0
"""How long the Hub may take to answer."""


def offline_where_out_of_reach() -> None:
    """Have Hugging Face's libraries use their cache alone where the Hub does not answer.

    They would try again for a minute, with a remark each time. Behind a proxy nobody can tell, and they do as they do.
    """
    from huggingface_hub import constants

    place = urllib.parse.urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or not place.hostname or urllib.request.getproxies().get(place.scheme):
        return
    try:
        port = place.port or {"http": 80}.get(place.scheme, 443)
        socket.create_connection((place.hostname, port), timeout=SECONDS).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True

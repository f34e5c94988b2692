"""--host or OLLAMA_HOST -> the URL of Ollama."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from plumbing.errors import UserError

PORT = 11434  # Ollama's own default


def server_url(host: str | None) -> str:
    """The URL of --host, else of OLLAMA_HOST, else of this machine.  As in Ollama, scheme and port may be missing.

    >>> server_url("box"), server_url("https://box"), server_url("0.0.0.0:8080")
    ('http://box:11434', 'https://box:443', 'http://127.0.0.1:8080')
    """
    given = (host or os.environ.get("OLLAMA_HOST") or "127.0.0.1").strip()
    scheme, found, rest = given.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port or ({"http": 80, "https": 443}[scheme] if found else PORT)
    except (ValueError, KeyError):
        raise UserError(
            f"'{given}' is not an address of Ollama; expected for example http://127.0.0.1:{PORT}"
        ) from None
    # A server on 0.0.0.0 listens on every interface; a client cannot call that address.
    name = "127.0.0.1" if parts.hostname in (None, "", "0.0.0.0") else parts.hostname
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path.rstrip('/')}"

"""Where the Ollama is that a model is registered with, measured on and asked: --host or OLLAMA_HOST -> its URL."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from plumbing.errors import UserError

PORT = 11434  # Ollama's own default


def server_url(host: str | None) -> str:
    """--host, else OLLAMA_HOST, else this machine; the scheme and the port may be missing, as Ollama allows.

    >>> server_url("box"), server_url("https://box"), server_url("0.0.0.0:8080")
    ('http://box:11434', 'https://box:443', 'http://127.0.0.1:8080')
    """
    given = (host or os.environ.get("OLLAMA_HOST") or "127.0.0.1").strip()
    scheme, found, rest = given.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'http'}://{rest}")
        port = parts.port or ({"http": 80, "https": 443}[scheme] if found else PORT)
    except (ValueError, KeyError):
        raise UserError(f"'{given}' is no address of an Ollama; wanted such as http://127.0.0.1:{PORT}") from None
    name = parts.hostname or "127.0.0.1"
    name = "127.0.0.1" if name == "0.0.0.0" else name  # a server's "every interface" is no address to call
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path.rstrip('/')}"

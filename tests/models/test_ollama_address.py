"""models/ollama_address.py: what OLLAMA_HOST may hold, as Ollama itself reads it."""

from __future__ import annotations

import pytest

from models.ollama_address import server_url
from plumbing.errors import UserError


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://box", "http://box:80"),
        ("https://box/ollama/", "https://box:443/ollama"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("localhost", "http://localhost:11434"),
        (" box ", "http://box:11434"),
    ],
)
def test_server_url(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert server_url(host) == url
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert server_url(None) == url


@pytest.mark.parametrize("host", ["box:port", "ftp://box", "http://[::1"])
def test_no_address(host: str) -> None:
    with pytest.raises(UserError, match="is not an address"):
        server_url(host)

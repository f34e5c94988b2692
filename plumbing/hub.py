"""The Hugging Face Hub as the stages that publish meet it: is the name one, is there a token, what went wrong in one line.

The token is huggingface_hub's own business (HF_TOKEN or `hf auth login`), and so is the address (HF_ENDPOINT).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from plumbing.errors import UserError

AGAIN = "the same command again sends what is missing"


def check_push(repo: str) -> None:
    """Raises UserError when the name cannot be a repository's, or no token that can be sent is there."""
    from huggingface_hub import get_token

    check_name(repo)
    token = get_token()
    if not token:
        raise UserError("no Hugging Face token: `hf auth login`, or set HF_TOKEN to a token that may write")
    if not re.fullmatch("[!-~]+", token):  # httpx would refuse it, and print it
        raise UserError("the Hugging Face token holds a blank or a letter that no token has; set HF_TOKEN anew")


def check_name(repo: str) -> None:
    """Raises UserError when it cannot be a repository's name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but re-exported without saying so

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is no repository's name, wanted NAME or OWNER/NAME: {error}") from None


@contextlib.contextmanager
def hub_errors(repo: str, endpoint: str, no_answer: type[Exception]) -> Iterator[None]:
    """What goes wrong on the way to the Hub as a UserError.  `no_answer`: what the HTTP library raises without one."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or error.response.reason_phrase
        raise UserError(f"{repo}: not published: {endpoint} answers {status} ({said}): {_cure(status, repo)}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{repo}: not published: HF_HUB_OFFLINE is set; unset it") from None
    except no_answer as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{repo}: not published: no answer from {endpoint} ({reason}): "
            f"look at the network, and at HF_ENDPOINT if it is set; {AGAIN}"
        ) from None
    except (RuntimeError, ValueError) as error:  # of a large file's upload, or the Hub's own word on the card
        raise UserError(f"{repo}: not published: {error} {error.__cause__ or ''}; {AGAIN}") from None


def _cure(status: int, repo: str) -> str:
    owner = repo.partition("/")[0] if "/" in repo else "you"
    if status == 401:
        return "the token is not valid; `hf auth login` with a new one, or set HF_TOKEN"
    if status in (403, 404):
        return f"the token may not write there; take one that may write for {owner}, or name a repository of your own"
    return "try again later" if status in (409, 412, 429) or status >= 500 else "mend what the answer names"

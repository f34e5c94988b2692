"""Files -> one commit in a repository of the Hugging Face Hub, or one line that says what went wrong.

huggingface_hub itself finds the token (HF_TOKEN or `hf auth login`) and the Hub's address (HF_ENDPOINT).
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from plumbing.errors import UserError

AGAIN = "run the same command again: it sends what is missing"


def push(files: Mapping[str, Path | bytes], kind: str, repo: str, message: str, private: bool = False) -> str:
    """Publish `files` (path in the repository -> file or content) in one commit; returns the commit's address.

    `kind` is dataset or model, `repo` NAME or OWNER/NAME.  The repository is created if it does not exist, and its
    other files stay.  A large file whose sha256 the Hub has already is not sent again.  upload_folder and
    upload_large_folder may make several commits, and a failure would leave half of the folder; so neither is used.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, utils

    check_push(repo)
    if not sys.stderr.isatty():
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    api = HfApi()
    with _hub_errors(repo, api.endpoint):
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        made = api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True).repo_id
        if private and not api.repo_info(made, repo_type=kind).private:
            raise UserError(f"{made}: is a public repository already; make it private in its settings, or name another")
        return str(api.create_commit(made, operations, commit_message=message, repo_type=kind).commit_url)


def check_push(repo: str) -> None:
    """Raises UserError if the name cannot be a repository's, or if there is no token that can be sent."""
    from huggingface_hub import get_token

    check_name(repo)
    token = get_token()
    if not token:
        raise UserError("no Hugging Face token: `hf auth login`, or set HF_TOKEN to a token that may write")
    if not re.fullmatch("[!-~]+", token):  # httpx would refuse it, and print it
        raise UserError("the Hugging Face token holds a blank or a letter that no token has; set HF_TOKEN again")


def check_name(repo: str) -> None:
    """Raises UserError if this cannot be a repository's name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but re-exported without saying so

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is not a repository's name, expected NAME or OWNER/NAME: {error}") from None


@contextlib.contextmanager
def _hub_errors(repo: str, endpoint: str) -> Iterator[None]:
    """Turns what goes wrong on the way to the Hub into a UserError."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except HfHubHTTPError as error:
        status, reason = error.response.status_code, error.server_message or error.response.reason_phrase
        cure = _cure(status, repo)
        raise UserError(f"{repo}: not published: {endpoint} answers {status} ({reason}): {cure}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{repo}: not published: HF_HUB_OFFLINE is set; unset it") from None
    except HTTPError as error:  # httpx's own, the parent of HfHubHTTPError: no answer came
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{repo}: not published: no answer from {endpoint} ({reason}): "
            f"check the network, and HF_ENDPOINT if it is set; {AGAIN}"
        ) from None
    except (RuntimeError, ValueError) as error:  # from a large file's upload, or the Hub's own check of the card
        raise UserError(f"{repo}: not published: {error} {error.__cause__ or ''}; {AGAIN}") from None


def _cure(status: int, repo: str) -> str:
    owner = repo.partition("/")[0] if "/" in repo else "you"
    if status == 401:
        return "the token is not valid; `hf auth login` with a new one, or set HF_TOKEN"
    if status in (403, 404):
        return f"the token may not write there; take one that may write for {owner}, or name a repository of your own"
    return "try again later" if status in (409, 412, 429) or status >= 500 else "fix what the answer names"

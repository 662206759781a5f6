"""A Hugging Face Hub: whether it has a model, and giving it a finished one, with whatever token its own library finds; that
is never shown."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import RunFailed, UserError

_ANSWER_S = 10.0


def check_model(name: str, revision: str | None) -> None:
    """Before any work: whether the Hub answers and has the model's config.json; nothing is fetched.

    What lies in the Hub's cache here needs no answer, and neither does HF_HUB_OFFLINE.

    Raises:
        UserError: it cannot be reached within seconds, or has no such model, revision or permission.
    """
    from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if constants.HF_HUB_OFFLINE or isinstance(cached, str):
            return
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=_ANSWER_S)
    except HFValidationError as error:
        raise UserError(f"model.hub {name}: {' '.join(str(error).split())}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        at = "" if revision is None else f" at revision {revision}"
        if status == 404:
            raise UserError(
                f"model.hub {name}: {constants.ENDPOINT} has no such model{at}, or none with a config.json"
            ) from None
        reason = _hidden(error.server_message or str(error), get_token())
        way_out = "; log in with `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        raise UserError(
            f"model.hub {name}: {constants.ENDPOINT} refuses it{at} ({status}: {reason}){way_out}"
        ) from None
    except Exception as error:  # its HTTP library's
        reason = _hidden(f"{type(error).__name__}: {error}", get_token())
        raise UserError(
            f"model.hub {name}: {constants.ENDPOINT} cannot be reached ({reason}); model.folder takes a model that is here"
        ) from None


def check_push(name: str) -> None:
    """Before any work: whether ``name`` can be a repository's, and whether there is a token.

    Raises:
        UserError: it cannot, there is none, or the environment forbids the network.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push {name}: {' '.join(str(error).split())}") from None
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"--push {name}: HF_HUB_OFFLINE is set: nothing can be pushed")
    if get_token() is None:
        raise UserError(f"--push {name}: no token: log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str, private: bool) -> str:
    """Upload the folder's files in one commit, making the repository where there is none; returns its address.

    private: only of a repository that is made now.

    Raises:
        UserError: the Hub refuses the token, the name or the files.
        RunFailed: the Hub cannot be reached, or fails.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    # Its retries would be lines of their own; what they come to is told below.
    hub_logging.set_verbosity_error()
    disable_progress_bars()
    api = HfApi()
    try:
        repository = api.create_repo(name, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder, commit_message="Upload of a trained model")
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        reason = _hidden(error.server_message or str(error), get_token())
        if status in (401, 403):
            raise UserError(f"--push {name}: the Hub does not allow it with this token ({status}: {reason})") from None
        if 400 <= status < 500 and status not in (408, 429):
            raise UserError(f"--push {name}: the Hub refused it ({status}: {reason})") from None
        raise RunFailed(f"--push {name}: {constants.ENDPOINT} failed ({status}: {reason}); try again later") from None
    except Exception as error:  # its HTTP library's, a protocol's, a file's: none of them is ours to know
        reason = _hidden(f"{type(error).__name__}: {error}", get_token())
        raise RunFailed(f"--push {name}: {constants.ENDPOINT} could not be reached, or failed ({reason})") from None
    return str(repository)


def _hidden(text: str, token: str | None) -> str:
    """The first line, without the token should it be in it."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    return first.replace(token, "…") if token else first

"""Where a model's files are: a local directory, or a download from the Hugging Face hub.

Knows nothing of what the files hold. Imports no torch.
"""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from rillm.errors import ConfigError

# Only what rillm reads: repositories often hold the same weights again in other formats.
_PATTERNS = ["*.json", "*.jinja"]
_WEIGHTS = ["model*.safetensors"]


def resolve_model(model: str, revision: str | None = None, *, has_weights: bool = True) -> Path:
    """Find the directory of a model, downloading it if need be.

    Args:
        model: path of a directory, or an id on the hub such as `Qwen/Qwen3-0.6B`.
        revision: branch, tag or commit on the hub; None means its default branch.
        has_weights: False downloads only what is needed to make prompts and to read answers.

    Returns:
        A directory that holds the model's files.

    Raises:
        ConfigError: there is no such directory, the id is unknown or needs permission, or the
            hub could not be reached and the model is not in the local cache.
    """
    directory = Path(os.path.expanduser(model))
    if model and directory.is_dir():
        if revision is not None:
            raise ConfigError(f"revision {revision!r} given, but {model!r} is a local directory")
        return directory
    if not _could_be_hub_id(model):
        raise ConfigError(f"model directory {model!r} does not exist")
    patterns = [*_PATTERNS, *_WEIGHTS] if has_weights else _PATTERNS
    try:
        return Path(
            huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=patterns)
        )
    except GatedRepoError as error:
        raise ConfigError(
            f"model {model!r} needs permission: accept its licence on the hub and log in"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"model {model!r} has no revision {revision!r} on the hub") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ConfigError(
            f"model {model!r} is neither a directory nor a public model on the hub"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"model {model!r} is not a directory, and the hub could not be reached "
            f"to look it up: {error}"
        ) from error


def _could_be_hub_id(model: str) -> bool:
    return bool(model) and not model.startswith((".", "/", "~")) and model.count("/") <= 1

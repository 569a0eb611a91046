"""Publishing a model on a hub, with its card."""

import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from crossguard.checks import WrongKind

CARD = "README.md"
"""The file that a hub shows as a model's card."""


def push_to_hub(
    model: Any,
    repo: str,
    *,
    card: str | None = None,
    private: bool = False,
    message: str = "Upload model",
    api: HfApi | None = None,
) -> str:
    """Upload a model to a hub, by its client and whatever account it is logged in with (`hf auth login`).

    Args:
        model: a model with `save_pretrained`, or the folder of one.
        repo: "owner/name"; made where it is not there yet.
        card: the card's text, as `crossguard card` writes it; None: the folder's own, if any.
        private: of a new repository.
        message: of the commit.
        api: the client; default: one with its own settings.

    Returns:
        The address of the commit.

    Raises:
        ValueError: a name that no repository can have, or no such folder.
        WrongKind: neither a folder nor a model that can be saved.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"Expected a repository as owner/name, but got {repo!r}: {error}") from error
    client = HfApi() if api is None else api
    with tempfile.TemporaryDirectory(prefix="crossguard-") as folder:
        if isinstance(model, str | Path):
            place = Path(model).expanduser()
            if not place.is_dir():
                raise ValueError(f"Expected a model's folder, but there is none at {place}.")
        elif hasattr(model, "save_pretrained"):
            place = Path(folder) / "model"
            model.save_pretrained(place)
        else:
            raise WrongKind(f"Expected a model with `save_pretrained`, or a folder, but got {type(model).__name__}.")
        client.create_repo(repo, private=private, exist_ok=True)
        done = client.upload_folder(repo_id=repo, folder_path=str(place), commit_message=message)
        if card is not None:
            done = client.upload_file(
                path_or_fileobj=card.encode(), path_in_repo=CARD, repo_id=repo, commit_message="Upload the card"
            )
    return str(done.commit_url)

"""From a folder or a hub id to a local folder with a model's small files and one kind of weights, not all copies."""

from pathlib import Path

from huggingface_hub import list_repo_files, snapshot_download

from crossguard.checks import expanded, visible
from crossguard.models.originals import choose_weights

_SMALL = (".json", ".txt", ".model", ".jinja")


def is_hub_id(name: str) -> bool:
    """Return whether a text looks like "owner/name"."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def local_folder(source: Path | str, *, offline: bool) -> Path:
    """Return a folder as it is, or the folder that a hub id's files are kept in, fetched where they are not there yet.

    Args:
        source: the folder or hub id.
        offline: never ask a hub.

    Raises:
        ValueError: no such folder, and nothing can be had of such a hub id.
    """
    folder, name = expanded(source), str(source)
    if folder.is_dir() or not is_hub_id(name):
        return folder
    if not offline:
        try:
            return _fetched(name)
        except ValueError:
            raise
        except Exception as error:  # the client's own, and those of what it asks with
            return _kept(name, error)
    return _kept(name, None)


def _fetched(name: str) -> Path:
    names = [file for file in list_repo_files(name) if "/" not in file]
    try:
        weights = choose_weights(names, where=name)
    except ValueError:
        weights = ""  # said by whoever reads the folder
    shards = [file for file in names if weights.endswith(".index.json") and _is_shard(file, weights)]
    wanted = [file for file in names if file.endswith(_SMALL)] + [weights, *shards]
    return Path(snapshot_download(name, allow_patterns=[file for file in wanted if file]))


def _is_shard(file: str, index: str) -> bool:
    stem, _, suffix = index.removesuffix(".index.json").rpartition(".")
    return file.startswith(f"{stem}-") and file.endswith(f".{suffix}")


def _kept(name: str, cause: Exception | None) -> Path:
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:
        reason = str(cause or error).splitlines()[0]
        raise ValueError(
            f"Expected a model's folder or hub id, but there is no folder {visible(name)}, and from a hub "
            f"the config of {name!r} could not be had: {reason}"
        ) from (cause or error)

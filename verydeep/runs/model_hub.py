"""Models of the Hugging Face hub, `hub:NAME` or `hub:NAME@REVISION`: downloads and uploads of their files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from verydeep.images.sources.hub import PREFIX
from verydeep.machine.errors import one_line
from verydeep.machine.libraries import library


def is_named(run: str | Path) -> bool:
    """Return whether a run is a model of the hub, not a folder."""
    return str(run).startswith(PREFIX)


def repository(name: str) -> str:
    """Return OWNER/MODEL of `hub:OWNER/MODEL@REVISION`."""
    return name.removeprefix(PREFIX).partition("@")[0]


@cache
def downloaded(name: str, files: Sequence[str], *, beside: Path | None = None) -> Path:
    """Return the folder in the hub's cache with those of `files` that the model has. A process sees one state of it.

    `beside` is the folder of files of the model that were downloaded before: those of the same state are taken.

    Raises:
        ValueError: there is no such model or revision, it needs a login, or huggingface_hub is missing.
        OSError: the hub cannot be reached.
    """
    hub = library("huggingface_hub", needed_by=name)
    revision = name.partition("@")[2]
    with _errors_in_one_line(name):
        state = beside.name if beside else revision or None  # the hub's cache calls folders after the commit
        return Path(hub.snapshot_download(repository(name), revision=state, allow_patterns=list(files)))


def upload(name: str, files: Mapping[str, Path | bytes], *, private: bool, message: str) -> str:
    """Create the model if it is not there, and put the files into it, all at once; return its address.

    `private` applies to a new model; an existing one stays as it is.

    Raises:
        ValueError: an impossible name, no login, no right to write there, or huggingface_hub is missing.
        OSError: the hub cannot be reached.
    """
    hub = library("huggingface_hub", needed_by=name)
    with _errors_in_one_line(name):
        api = hub.HfApi()
        made = api.create_repo(name.removeprefix(PREFIX), private=private, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file) if isinstance(file, Path) else file)
            for path, file in files.items()
        ]
        api.create_commit(made.repo_id, operations, commit_message=message)
    return str(made)


@contextmanager
def _errors_in_one_line(name: str) -> Iterator[None]:
    """Turn the hub's errors into one line with advice."""
    try:
        yield
    except Exception as error:  # the library's transport has exceptions of its own
        raise _in_one_line(name, error) from error


def _in_one_line(name: str, error: Exception) -> ValueError | OSError:
    from huggingface_hub import errors

    wrong_use = {
        errors.GatedRepoError: f"{name} is only given to those who have agreed to its terms: do that on its page",
        errors.RepositoryNotFoundError: (
            f"there is no {name} on the hub, or it is private: check the name, or hf auth login"
        ),
        errors.RevisionNotFoundError: f"{name}: there is no such revision: check the name after the @",
        errors.HFValidationError: f"{name}: a model is called {PREFIX}OWNER/MODEL ({error})",
        errors.LocalTokenNotFoundError: f"{name}: you are not logged in to the hub: hf auth login",
    }
    for kind, message in wrong_use.items():
        if isinstance(error, kind):
            return ValueError(message)
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            return ValueError(f"{name}: the hub does not allow you this: hf auth login, with a token that may write")
        return OSError(f"{name}: the hub answers {status or error}")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return OSError(f"{name} cannot be fetched: the hub cannot be reached, and it is not in the cache")
    return OSError(f"{name}: {one_line(error)}")

"""Repositories of the Hugging Face Hub: names, files, folders. The token is never touched here.

`huggingface_hub` finds the token itself (``HF_TOKEN``, or what ``hf auth login`` kept), and the
server (``HF_ENDPOINT``). What it says of an error names neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asced_stores.errors import AscedError, InputError, install_hint

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
MARKERS = "commits/*"
Kind = Literal["model", "dataset"]
_REFERENCE = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+?))?(?:/(?P<path>[^@\s]+))?"
)


class HubError(AscedError, OSError):
    """The Hub refused, did not answer, or holds something else."""


@dataclass(frozen=True)
class HubReference:
    """A repository, a revision of it, and perhaps a path inside.

    Attributes
    ----------
    repo : str
        ``owner/name``.
    path : str or None
        Of a file or folder in the repository.
    revision : str or None
        A branch, tag or commit; None is ``main``.
    """

    repo: str
    path: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        at = "" if self.revision is None else f"@{self.revision}"
        return f"{SCHEME}{self.repo}{at}" + ("" if self.path is None else f"/{self.path}")

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Read ``owner/name``, ``owner/name/path`` or ``owner/name@revision/path``.

        ``hf://`` may stand before it.

        Raises
        ------
        InputError
            Where it is none of these.
        """
        found = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
        parts = (found["path"] or "").split("/") if found else []
        if found is None or ".." in parts or "." in parts or found["repo"].count("/") != 1:
            raise InputError(
                f"{text!r} is no repository of the Hub; expected owner/name, owner/name/path or "
                "owner/name@revision/path"
            )
        return cls(found["repo"], found["path"], found["revision"])


def hub_file(
    reference: HubReference, path: str, *, kind: Kind = "model", commit: str | None = None
) -> tuple[Path, str]:
    """Bring one file into the Hub's local cache, or take it from there when offline.

    Parameters
    ----------
    reference : HubReference
    path : str
        Inside the repository.
    kind : {"model", "dataset"}
    commit : str, optional
        In place of the reference's revision, so that two files are of one commit.

    Returns
    -------
    pathlib.Path, str
        The file in the cache, and the commit that it is of.

    Raises
    ------
    HubError
    """
    with _said(reference):
        from huggingface_hub import hf_hub_download

        file = Path(
            hf_hub_download(
                reference.repo, path, repo_type=kind, revision=commit or reference.revision
            )
        )
    return file, file.parents[path.count("/")].name


def hub_folder(reference: HubReference, out: Path, *, kind: Kind = "dataset") -> Path:
    """Bring a folder of a repository to a local one; a download that was cut short goes on.

    Parameters
    ----------
    reference : HubReference
        Its path is the folder's.
    out : path
        Where files are kept until all are there; the folder lies below it under its own path.
    kind : {"model", "dataset"}

    Raises
    ------
    HubError
    """
    import glob

    assert reference.path is not None
    with _said(reference):
        from huggingface_hub import snapshot_download

        snapshot_download(
            reference.repo,
            repo_type=kind,
            revision=reference.revision,
            allow_patterns=f"{glob.escape(reference.path)}/*",
            local_dir=out,
        )
    return out / reference.path


def hub_paths(reference: HubReference, *, kind: Kind) -> list[str]:
    """Paths of all files of a repository."""
    with _said(reference):
        return list(
            _api().list_repo_files(reference.repo, repo_type=kind, revision=reference.revision)
        )


def make_repository(reference: HubReference, *, kind: Kind, public: bool = False) -> None:
    """Make a repository where there is none; one that exists keeps who may see it."""
    with _said(reference):
        _api().create_repo(reference.repo, repo_type=kind, private=not public, exist_ok=True)


def upload_files(
    reference: HubReference, files: Sequence[tuple[str, Path | bytes]], *, kind: Kind, message: str
) -> str:
    """Put files into a repository in one commit, and return its address."""
    with _said(reference):
        from huggingface_hub import CommitOperationAdd

        made = _api().create_commit(
            reference.repo,
            [CommitOperationAdd(path_in_repo=path, path_or_fileobj=of) for path, of in files],
            repo_type=kind,
            revision=reference.revision,
            commit_message=message,
        )
    return str(made.commit_url)


def upload_store(reference: HubReference, folder: Path, *, message: str) -> None:
    """Put a store's folder into a dataset repository, and take out what it no longer holds.

    Markers go last: a batch that has one is there, wherever the upload is cut short. The same call
    again sends what is missing; large files go through Xet, which knows the parts that it has.

    Parameters
    ----------
    reference : HubReference
        Its path is where the folder shall lie.
    folder : path
    message : str
        Of the commits.
    """
    common: dict[str, Any] = {
        "repo_id": reference.repo,
        "folder_path": folder,
        "path_in_repo": reference.path,
        "repo_type": "dataset",
        "revision": reference.revision,
        "commit_message": message,
    }
    with _said(reference):
        _api().upload_folder(**common, ignore_patterns=[MARKERS], delete_patterns="*")
        _api().upload_folder(**common, allow_patterns=[MARKERS])


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(library_name="asced-analysis")


@contextmanager
def _said(reference: HubReference) -> Iterator[None]:
    """Say errors of the Hub in one line, with what to do."""
    try:
        import httpx2 as httpx
        from huggingface_hub import errors
    except ModuleNotFoundError as error:
        raise InputError(f"{reference} needs {error.name}: {install_hint('hub')}") from error
    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(f"{reference} is gated: ask for access on its page, then log in") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{reference}: there is no such repository, or this login may not see it; log in with "
            "`hf auth login`, or set HF_TOKEN"
        ) from error
    except (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise HubError(f"{reference} holds no {_missing(error, reference)}") from error
    except (errors.LocalEntryNotFoundError, httpx.TransportError) as error:
        raise HubError(
            f"{reference}: the Hub does not answer or broke off, and the local cache does not hold "
            "it; the same command again goes on"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError(
            f"{reference}: nobody is logged in; run `hf auth login`, or set HF_TOKEN"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        what = (
            "this login may not do that; log in with `hf auth login`, or set HF_TOKEN to a token "
            "that may write"
            if status in (401, 403)
            else f"the Hub answered {status}; the same command again goes on"
        )
        raise HubError(f"{reference}: {what}") from error


def _missing(error: Any, reference: HubReference) -> str:
    """The file, or revision, that is not there."""
    if "Revision" in type(error).__name__:
        return f"revision {reference.revision}"
    name = str(error.response.url).partition("/resolve/")[2].partition("/")[2]
    return f"file {name or reference.path}"

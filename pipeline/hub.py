"""Fetching single public files from the Hugging Face Hub, going on where an earlier call ended."""

from pathlib import Path

from pipeline.artefacts import digest
from pipeline.published import Offline, Unavailable


def fetch_from_hub(repo: str, name: str, folder: Path) -> Path:
    """Fetch a file of a public repository into a folder; a Fetch of `pipeline.published`.

    hf_hub_download starts a file anew in every process. The same library's lower calls go on with a part that is
    named by the content it belongs to, so that a later call may end what an earlier one began.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get

    found = _metadata(get_hf_file_metadata, hf_hub_url, repo, name)
    url = hf_hub_url(repo, name, revision=found.commit_hash)
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / Path(name).name
    if whole.is_file() and whole.stat().st_size == found.size and _is_it(whole, found.etag):
        return whole  # an earlier call was stopped while it looked at the file
    part = folder / f"{found.etag}.incomplete"
    try:
        with part.open("ab") as stream:
            http_get(url, stream, resume_size=stream.tell(), expected_size=found.size, displayed_filename=name)
    except (HTTPError, OSError) as error:
        if found.size is not None and part.stat().st_size >= found.size:
            part.unlink()
            raise Unavailable("the transfer came out too long; run this command again") from None
        raise Unavailable(f"the transfer broke off ({_reason(error)}); run this command again to go on") from None
    if not _is_it(part, found.etag):
        part.unlink()
        raise Unavailable("what came is damaged; run this command again")
    return part.rename(whole)


def _is_it(path: Path, etag: str) -> bool:
    return len(etag) != 64 or digest(path) == etag  # of a large file the tag is its sha256


def _metadata(get_metadata, url_of, repo: str, name: str):
    """Tag, size and revision of a file, or Unavailable in plain words."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        found = get_metadata(url_of(repo, name), token=False)
    except HFValidationError as error:
        raise Unavailable(_reason(error)) from None
    except GatedRepoError:
        raise Unavailable("only registered users may fetch it: fetch it with a browser") from None
    except RepositoryNotFoundError:
        raise Unavailable("the repository is gone, renamed or not public") from None
    except RemoteEntryNotFoundError:
        raise Unavailable("the repository holds no file of this name") from None
    except HfHubHTTPError as error:
        raise Unavailable(f"the hub refuses: {_reason(error)}") from None
    except (HTTPError, OSError):
        raise Offline("the hub cannot be reached (offline?)") from None
    if not found.etag:
        raise Unavailable("the hub does not say which content the file has")
    return found


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

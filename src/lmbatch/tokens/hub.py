"""Tokenizers by their name on the Hugging Face hub: only the tokenizer's files, into the hub's own cache.

`huggingface_hub` does the fetching, so HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean
everywhere. Once fetched, a name also works without a network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmbatch.errors import TokenizerError

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")


@dataclass(frozen=True, slots=True)
class HubName:
    """``ORGANISATION/NAME``, perhaps with ``@REVISION``: a branch, a tag or a commit."""

    repository: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


@dataclass(frozen=True, slots=True)
class HubFolder:
    """A fetched tokenizer: its folder in the cache, and the commit that the name stood for."""

    folder: Path
    name: HubName
    commit: str

    def __str__(self) -> str:
        return f"{self.name.repository}@{self.commit}"


def hub_name(path: str | Path) -> HubName | None:
    """The name that ``path`` is, unless it is a folder here or cannot be one on the hub."""
    match = _NAME.fullmatch(str(path))
    if match is None or Path(path).is_dir():
        return None
    return HubName(match[1], match[2])


def fetch_from_hub(name: HubName, files: Sequence[str]) -> HubFolder:
    """Those of ``files`` that the repository has, at one commit.

    Raises TokenizerError where there is no such repository or revision, where it wants a token, and where it is
    neither in the cache nor can be reached. No message holds a token.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        found = huggingface_hub.snapshot_download(name.repository, revision=name.revision, allow_patterns=[*files])
    except errors.GatedRepoError:
        raise _error(name, "is gated on the hub: it wants a token that may read it",
                     "accept its terms on its page, then set HF_TOKEN (or run `hf auth login`)") from None  # fmt: skip
    except errors.RepositoryNotFoundError:
        raise _error(name, "is no folder here and no repository on the hub that may be read",
                     "correct the name or the path; for a private one set HF_TOKEN") from None  # fmt: skip
    except errors.RevisionNotFoundError:
        raise _error(name, "has no such revision on the hub", "name a branch, a tag or a commit of it") from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise _error(name, f"is no folder here, not in the hub's cache, and the hub cannot be reached{_status(error)}",
                     "fetch it where there is a network, or give a folder; HF_HOME names the cache, HF_ENDPOINT a "
                     "mirror") from None  # fmt: skip
    finally:
        if quiet:
            enable_progress_bars()
    folder = Path(str(found))
    return HubFolder(folder, name, folder.name)


def _status(error: Exception) -> str:
    """Only the number: a text of somebody else's might hold anything."""
    response = getattr(error, "response", None)
    return f" (HTTP {response.status_code})" if response is not None else ""


def _error(name: HubName, what: str, remedy: str) -> TokenizerError:
    return TokenizerError(f"tokenizer {name}: {what}", remedy=remedy)

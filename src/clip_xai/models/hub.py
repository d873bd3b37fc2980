"""Published weights: from the local cache if they are there, from the hub if it answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

from clip_xai.errors import UserError

TIMEOUT_SECONDS = 5.0
# What the network and the hub answer with; the first is the HTTP library's own, of whatever version. Anything else is a
# fault of this program and is not reported as missing weights.
_FAILURES: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, OSError, EntryNotFoundError, HFValidationError)


def hub_folder(
    repository: str, probe: str | Sequence[str], patterns: Sequence[str], advice: str, revision: str | None = None
) -> Path:
    """Return a local folder that holds a repository's files.

    The hub is the one that ``HF_ENDPOINT`` names, the cache the one that ``HF_HUB_CACHE`` or ``HF_HOME`` names.

    Args:
        repository: ``ORGANISATION/MODEL``.
        probe: A file that a complete copy has, or several of which it has one; looked for in the cache, then on the
            hub.
        patterns: Which files to download; code is never among them.
        advice: What the user may do when they cannot be had, for the error's one line.
        revision: A commit, tag or branch to hold on to; None for the newest.

    Raises:
        UserError: The files are not in the cache and the hub does not give them.
    """
    probes = [probe] if isinstance(probe, str) else list(probe)
    cache, endpoint = os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_ENDPOINT")
    for file in probes:
        cached = try_to_load_from_cache(repository, file, cache_dir=cache, revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent
    try:
        # One question with a short patience first: the library's own retries take half a minute to say that there is
        # no network.
        try:
            url = hf_hub_url(repository, probes[0], revision=revision, endpoint=endpoint)
            get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS, endpoint=endpoint)
        except EntryNotFoundError:
            if len(probes) == 1:
                raise
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), cache_dir=cache, endpoint=endpoint
        )
        return Path(folder)
    except _FAILURES as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        at = f" at {revision}" if revision else ""
        raise UserError(f"the weights {repository}{at} are missing ({reason}); {advice}") from error

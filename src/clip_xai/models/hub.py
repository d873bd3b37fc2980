"""Published weights: from the local cache if they are there, from the hub if it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, snapshot_download, try_to_load_from_cache

from clip_xai.errors import UserError

TIMEOUT_SECONDS = 5.0


def hub_folder(repository: str, probe: str, patterns: Sequence[str], advice: str) -> Path:
    """Return a local folder that holds a repository's files.

    Args:
        repository: ``ORGANISATION/MODEL``.
        probe: A file that every complete copy has; it is looked for in the cache, then on the hub.
        patterns: Which files to download.
        advice: What the user may do when they cannot be had, for the error's one line.

    Raises:
        UserError: The files are not in the cache and the hub does not give them.
    """
    cached = try_to_load_from_cache(repository, probe)
    if isinstance(cached, str):
        return Path(cached).parent
    try:
        # One question with a short patience first: the library's own retries take half a minute to say that there is
        # no network.
        get_hf_file_metadata(hf_hub_url(repository, probe), timeout=TIMEOUT_SECONDS)
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise UserError(f"the weights {repository} are missing ({reason}); {advice}") from error

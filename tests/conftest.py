"""What every test needs."""

from __future__ import annotations

import sys

import pytest
from absl import logging as absl_logging

from clip_xai.models.captioner import Captioner
from tests.support.small_captioner import captioner_of_phrases

# rouge-score brings absl's log handler, which keeps the standard error it finds at import. Under pytest that is the
# capture's own file, and the handler closes it as soon as Hydra configures logging.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def random_captioner() -> Captioner:
    """A captioner at random weights behind a tokenizer in whose tokens phrases of the vocabulary share beginnings."""
    return captioner_of_phrases()

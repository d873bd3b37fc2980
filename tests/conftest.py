"""What every test needs."""

from __future__ import annotations

import sys

from absl import logging as absl_logging

# rouge-score brings absl's log handler, which keeps the standard error it finds at import. Under pytest that is the
# capture's own file, and the handler closes it as soon as Hydra configures logging.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

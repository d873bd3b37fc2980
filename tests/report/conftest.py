"""Planted results for every test of the report."""

from __future__ import annotations

import pytest

from clip_xai.report.explained import ExplainedImage
from tests.report.planted import explained


@pytest.fixture()
def planted() -> ExplainedImage:
    return explained()

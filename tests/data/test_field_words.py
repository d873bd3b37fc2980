"""The words of a field stand in a file, which travels with the package."""

from __future__ import annotations

import pytest
import yaml

from clip_xai.data.field_words import FOLDER, vocabulary
from clip_xai.errors import UserError


def test_templates_come_from_the_file() -> None:
    said = yaml.safe_load((FOLDER / "skin.yaml").read_text())
    assert list(vocabulary().templates) == said["templates"] and vocabulary("skin").comparison == said["comparison"]
    assert all(text.count("{}") == 1 for text in (*vocabulary().templates, vocabulary().comparison))
    with pytest.raises(UserError, match="choose one of skin"):
        vocabulary("heart")

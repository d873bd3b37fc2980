"""Adds ``conf/``, which stands beside ``src/`` in the repository, to the package as ``clip_xai/conf``."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("src"), "clip_xai.conf"],
    package_dir={"": "src", "clip_xai.conf": "conf"},
    package_data={
        "clip_xai": ["assets/**/*", "**/*.yaml", "**/*.j2", "**/*.css", "**/*.js", "py.typed"],
        "clip_xai.conf": ["**/*.yaml"],
    },
)

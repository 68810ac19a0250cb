"""The README of the built package. What it links to in the repository, readers of PyPI can only have from there."""
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
URL = re.search(r'^Repository = "(.+?)/?"$', (ROOT / 'pyproject.toml').read_text(encoding='utf-8'), re.MULTILINE)


def absolute(link: 're.Match[str]') -> str:
    """A relative link or picture as an absolute one, or without an address as its text alone."""
    picture, text, path = link.groups()
    if URL is None:
        return '' if picture else text
    return f'{picture}[{text}]({URL[1]}/{"raw" if picture else "blob"}/main/{path})'


setup(
    long_description=re.sub(
        r'(!?)\[([^][]*)\]\((?!https?:)([^)]+)\)', absolute, (ROOT / 'README.md').read_text(encoding='utf-8')),
    long_description_content_type='text/markdown')

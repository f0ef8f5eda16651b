"""A hook of mkdocs: links out of this folder, which are for readers of the repository.

They lead there if mkdocs.yml says where that is (`repo_url`), and are plain text else.
"""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Change the links of one page."""
    repository = config.repo_url
    link = rf"[\1]({repository.rstrip('/')}/blob/main/\2)" if repository else r"\1"
    return _OUTSIDE.sub(link, markdown)

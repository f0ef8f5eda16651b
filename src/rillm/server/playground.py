"""GET / and /playground/...: a page to talk to the model and to look at its stream.

The page is the files beside this module, as they are: no build, nothing from other hosts. It
needs no API key, because it holds nothing; what it then asks of the API does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FILES: Final = Path(__file__).with_name("playground")
PAGE: Final = "index.html"

_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS: Final = {
    # What a model writes is shown by this page, so nothing but its own files may run, be loaded
    # or be asked, and no text becomes markup: Trusted Types has the browser refuse that as well.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked again each time, answered by 304: after an upgrade no old file meets a new one.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> _Asset:
        body = path.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        return cls(body, _MEDIA_TYPES[path.suffix], etag)


class Playground:
    """The routes of the page; its files are read once."""

    def __init__(self) -> None:
        self._assets = {path.name: _Asset.read(path) for path in FILES.iterdir()}

    async def get_page(self, request: Request) -> Response:
        """The page itself."""
        return self._answer(request, PAGE)

    async def get_file(self, request: Request) -> Response:
        """A script, a style sheet or the icon.

        Raises:
            HTTPException: 404, there is none of that name.
        """
        return self._answer(request, request.path_params["file"])

    def _answer(self, request: Request, name: str) -> Response:
        asset = self._assets.get(name)
        if asset is None:
            raise HTTPException(404)
        headers = _HEADERS | {"ETag": asset.etag}
        known = request.headers.get("if-none-match", "").split(",")
        # Proxies that compress make tags weak; for this comparison that is all the same.
        if asset.etag in {tag.strip().removeprefix("W/") for tag in known}:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, headers=headers | {"Content-Type": asset.media_type})

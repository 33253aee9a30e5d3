"""The explorer: a page to try the API from a browser. Development only, and without any network.

Its files are served from this folder and nothing else is loaded: the policy in the answer's header
forbids it.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from core import configuration

FOLDER = Path(__file__).parent
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
ASSETS = {path.name: path for path in FOLDER.iterdir() if path.suffix in KINDS}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def page(request: Request) -> Response:
    """The page itself."""
    return _served("explorer.html")


async def asset(request: Request) -> Response:
    """What the page needs."""
    return _served(request.path_params["name"])


def _served(name: str) -> Response:
    found = ASSETS.get(name)
    if found is None or configuration.current().environment != "development":
        return Response(b"not found", 404)
    return Response(
        found.read_bytes(),
        media_type=KINDS[found.suffix],
        headers={"content-security-policy": POLICY, "cache-control": "no-cache"},
    )

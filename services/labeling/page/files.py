"""The pages' files, read once: a request never touches the disk, and no path leads anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "static"
MEDIA_TYPES: Mapping[str, str] = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
PAGES: Mapping[str, str] = {
    "/": "index.html",
    "/lead": "lead.html",
    "/runs": "runs.html",
    "/tokens": "tokens.html",
    "/favicon.ico": "icon.svg",
}


def file_routes() -> list[Route]:
    """/static/NAME for each file, and the pages under their own addresses."""
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in MEDIA_TYPES]
    routes = [_route(f"/static/{path.name}", path) for path in files]
    return routes + [_route(address, FOLDER / name) for address, name in PAGES.items()]


def _route(address: str, path: Path) -> Route:
    content, media_type = path.read_bytes(), MEDIA_TYPES[path.suffix]

    async def serve(_request: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(address, serve, methods=["GET"])

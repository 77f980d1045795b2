"""The page: plain files, read once, and the pictures that it offers to try."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Response
from fastapi import Path as InPath

from ...data.generated import Recipe, draw

HERE = Path(__file__).parent
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
ADDRESSES = {"/": "index.html", "/docs": "docs.html"}
SAMPLES, SEED = 6, 2  # pictures to try
PICTURE = Recipe(width=512, height=384, smallest=32, largest=220, straws=60, crumbs=90)


def add_to(app: FastAPI) -> None:
    """Give an application the page. Each file has an address of its own, so that no request names a file."""
    for file in sorted(HERE.iterdir()):
        if file.suffix in KINDS:
            _add(app, f"/page/{file.name}", file)
    for address, name in ADDRESSES.items():
        _add(app, address, HERE / name)

    @app.get("/samples/{number}.jpg", include_in_schema=False)
    def picture(number: Annotated[int, InPath(ge=0, lt=SAMPLES)]) -> Response:
        """A picture of shapes among straw."""
        return Response(sample(number), media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})


@lru_cache(maxsize=SAMPLES)
def sample(number: int) -> bytes:
    """One of the generated pictures as JPEG; the training of the demo has not seen it."""
    data = io.BytesIO()
    draw(np.random.default_rng((SEED, number)), PICTURE).image.save(data, "JPEG", quality=90)
    return data.getvalue()


def _add(app: FastAPI, address: str, file: Path) -> None:
    content, kind = file.read_bytes(), KINDS[file.suffix]

    @app.api_route(address, methods=["GET", "HEAD"], include_in_schema=False)
    async def served() -> Response:
        return Response(content, headers={"Content-Type": kind, "Cache-Control": "no-cache"})

"""The sandbox's own page."""

from aiohttp import web


async def show(request: web.Request) -> web.Response:
    return web.Response(text="<!doctype html><title>Sandbox providers</title>", content_type="text/html")

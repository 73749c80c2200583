"""Static files over ASGI: WhiteNoise finds them, the event loop sends them, Django never wakes up."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from whitenoise.middleware import WhiteNoiseMiddleware

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
_CHUNK = 64 * 1024


class StaticFiles:
    """Answers for the files WhiteNoise knows. Build it once Django is set up."""

    def __init__(self) -> None:
        self._files = WhiteNoiseMiddleware(get_response=None)

    def _open(self, scope: MutableMapping[str, Any]) -> Any:
        path = scope["path"]
        file = self._files.find_file(path) if self._files.autorefresh else self._files.files.get(path)
        if file is None:
            return None
        headers = {
            "HTTP_" + name.decode("latin-1").upper().replace("-", "_"): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        return file.get_response(scope["method"], headers)

    async def __call__(self, scope: MutableMapping[str, Any], send: Send) -> bool:
        """Send the file `scope` asks for; False when there is none and somebody else should answer."""
        response = await asyncio.to_thread(self._open, scope)
        if response is None:
            return False
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        headers.append((b"x-content-type-options", b"nosniff"))
        await send({"type": "http.response.start", "status": int(response.status), "headers": headers})
        try:
            while response.file is not None and (chunk := await asyncio.to_thread(response.file.read, _CHUNK)):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            if response.file is not None:
                response.file.close()
        await send({"type": "http.response.body", "body": b""})
        return True

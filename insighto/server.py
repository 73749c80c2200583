"""The web server: uvicorn with our logging and limits. `python -m insighto.server --port 8000 --workers 2`."""

import argparse
import os

import django
import uvicorn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "insighto.settings")
    django.setup()
    from provider_keys import keyring  # needs Django set up

    keyring.check_before_serving()
    uvicorn.run(
        "insighto.asgi:application",
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_config=None,  # settings' JSON logs, scrubbed; uvicorn's own would print tracebacks as they are
        access_log=False,
        server_header=False,
        proxy_headers=False,  # settings say how many proxies to believe
        ws_max_size=256 * 1024,  # SSML is at most 64 kB
        ws_per_message_deflate=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        backlog=2048,
    )


if __name__ == "__main__":
    main()

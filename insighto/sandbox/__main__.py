"""`python -m insighto.sandbox --port N`: the sandbox without Django, which is what the runner and the tests start."""

import argparse
import os
import sys

from insighto.sandbox import server


def main() -> int:
    parser = argparse.ArgumentParser(prog="sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--chunk-delay-ms", type=int, default=12)
    parser.add_argument("--hang-s", type=float, default=30.0)
    parser.add_argument("--guard-fd", type=int, default=None, help="stop when the other end of this pipe closes")
    options = parser.parse_args()
    if os.environ.get("INSIGHTO_ENV", "development") == "production":
        sys.stderr.write("The sandbox providers do not exist in production.\n")
        return 1
    server.run(
        port=options.port, chunk_delay_ms=options.chunk_delay_ms, hang_s=options.hang_s, guard_fd=options.guard_fd
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

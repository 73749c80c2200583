"""Run the sandbox providers. They refuse to exist in production."""

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from insighto.sandbox import server


class Command(BaseCommand):
    help = "Run local servers that speak the protocols of OpenAI, Azure Speech and ElevenLabs."
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
        parser.add_argument("--chunk-delay-ms", type=int, default=12)
        parser.add_argument("--hang-s", type=float, default=30.0)
        parser.add_argument("--guard-fd", type=int, default=None, help="stop when the other end of this pipe closes")

    def handle(self, *_args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("The sandbox providers do not exist in production: unset SANDBOX_URL, use real keys.")
        server.run(
            port=options["port"],
            chunk_delay_ms=options["chunk_delay_ms"],
            hang_s=options["hang_s"],
            guard_fd=options["guard_fd"],
            out=self.stdout,
        )

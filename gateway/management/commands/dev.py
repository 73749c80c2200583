import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from insighto.dev.supervisor import Supervisor


class Command(BaseCommand):
    help = "Run the whole product on this machine: Valkey, sandbox providers, worker, scheduler, web."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("This is for development; in production see docker-compose.yml.")
        supervisor = Supervisor(
            base=settings.BASE_DIR,
            var=settings.VAR_DIR,
            port=options["port"],
            sandbox=settings.RUN_OWN_SANDBOX,
            redis_url=settings.REDIS_URL,
        )
        sys.exit(supervisor.run())

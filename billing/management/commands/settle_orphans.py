"""End what crashes left behind, now rather than at the next tick."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing.services import sweeper


class Command(BaseCommand):
    help = "Settles legs past their deadline and gives back holds that no leg stands behind."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count orphaned holds, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["dry_run"]:
            self.stdout.write(f"{sweeper.expire_orphans(dry_run=True)} orphaned holds would be given back.")
            return
        ended = sweeper.sweep()
        self.stdout.write(f"Ended {ended} legs and requests, gave back {sweeper.expire_orphans()} orphaned holds.")

"""Put every sealed value under the primary key-encryption key. Online, safe to stop and run again."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from provider_keys import keyring
from provider_keys.services import rewrap


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what is left.")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        primary = keyring.load().primary.kid
        reports = rewrap.run(dry_run=dry_run)
        for report in reports:
            self.stdout.write(f"{report.label}: {report.moved} moved to {primary}, {report.left} left")
            for kid, count in sorted(report.locked.items()):
                self.stdout.write(f"  {count} locked: the key ring has no key {kid}")
            if report.unreadable:
                self.stdout.write(f"  {report.unreadable} cannot be opened: changed, or moved from another row")
        left = sum(report.left for report in reports)
        if left and dry_run:
            self.stdout.write(f"{left} sealed values would be moved.")
        elif left:
            message = f"{left} sealed values are not under {primary}."
            raise CommandError(message)

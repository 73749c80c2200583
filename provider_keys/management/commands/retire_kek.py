"""Retire a key-encryption key that seals nothing any more; refused while a row refers to it."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from provider_keys.errors import KekRefused
from provider_keys.services import rewrap


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("kid", help="The name of the key in the key ring.")
        parser.add_argument("--dry-run", action="store_true", help="Only say whether it could be retired.")

    def handle(self, *args: Any, kid: str, dry_run: bool, **options: Any) -> None:
        try:
            rewrap.retire(kid, dry_run=dry_run)
        except KekRefused as error:
            raise CommandError(str(error)) from None
        if dry_run:
            self.stdout.write(f"{kid} seals nothing and can be retired.")
            return
        self.stdout.write(
            f"{kid} is retired: nothing will be sealed with it again. Take it out of the key ring and restart. "
            "Backups made before today still need it: destroy it when the last of them is gone."
        )

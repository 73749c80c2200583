"""Print one line for the key ring with a fresh key-encryption key, or add it to the ring's file.

Adding changes nothing yet: restart everything with the longer ring, make the new key
primary (CREDENTIAL_PRIMARY_KEK), restart, `rewrap`, `retire_kek`.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from provider_keys import keyring
from provider_keys.errors import KekRefused, KeyRingUnusable


class Command(BaseCommand):
    help = __doc__ or ""
    # Making the first key ring must be possible where there is none yet.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "kid", nargs="?", default=f"{timezone.now():%Y-%m-%d}", help="Its name; today's date unless given."
        )
        parser.add_argument("--add", action="store_true", help="Add it to CREDENTIAL_KEYS_FILE; print nothing secret.")

    def handle(self, *args: Any, kid: str, add: bool, **options: Any) -> None:
        try:
            line = keyring.new_line(kid)
            if not add:
                self.stdout.write(line)
                return
            path = keyring.add_to_file(line)
        except (KekRefused, KeyRingUnusable) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"Added {kid} to {path}. Restart every process, then set CREDENTIAL_PRIMARY_KEK={kid} and restart again."
        )

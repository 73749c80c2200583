"""`manage.py recheck_keys`: have stored keys looked at again, with the providers' free calls."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import Account
from provider_keys.models import Check, Connection, Provider
from provider_keys.services import checks


class Command(BaseCommand):
    help = "Have the workers check stored keys again. Asks for the checks and returns; safe to stop and to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", help="only this account (its slug)")
        parser.add_argument("--provider", choices=Provider.values, help="only keys of this provider")
        parser.add_argument("--older-than", type=int, default=0, metavar="HOURS", help="only verdicts at least so old")
        parser.add_argument("--dry-run", action="store_true", help="count, and ask for nothing")

    def handle(self, *_: Any, **options: Any) -> None:
        stored = Connection.objects.filter(removed_at=None, is_placeholder=False)
        if options["account"]:
            if not Account.objects.filter(slug=options["account"]).exists():
                raise CommandError("There is no such account.")
            stored = stored.filter(account__slug=options["account"])
        if options["provider"]:
            stored = stored.filter(provider=options["provider"])
        if options["older_than"]:
            stored = stored.exclude(verdict_at__gt=timezone.now() - timedelta(hours=options["older_than"]))
        accounts = keys = 0
        for account in Account.objects.filter(connections__in=stored).distinct().iterator():
            rows = list(stored.filter(account=account))
            if not options["dry_run"]:
                checks.request(account=account, connections=rows, trigger=Check.Trigger.RECHECK)
            accounts, keys = accounts + 1, keys + len(rows)
        asked = "would be asked for" if options["dry_run"] else "asked for"
        self.stdout.write(f"{keys} checks {asked}, for {accounts} accounts.")

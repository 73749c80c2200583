"""Recompute every wallet from its transfers and hold legs against their holds."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Account
from billing.models import LedgerAccount
from billing.services import verification


class Command(BaseCommand):
    help = (
        "Proves the ledger. A mismatch is printed, freezes that account's paid traffic, and makes the exit status 1. "
        "Transfers are never edited: correct with `adjust`, restore running sums with --restore-sums, then --release."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--account", help="slug of one account; default: all")
        parser.add_argument("--restore-sums", action="store_true", help="set the account's sums from its transfers")
        parser.add_argument("--release", action="store_true", help="unfreeze the account if its books are right")

    def handle(self, *args: Any, **options: Any) -> None:
        account = None
        if options["account"]:
            account = Account.objects.filter(slug=options["account"]).first()
            if account is None:
                raise CommandError("There is no such account.")
        if options["restore_sums"] or options["release"]:
            if account is None:
                raise CommandError("Name the account.")
            if options["restore_sums"]:
                verification.restore_sums(account)
            found = verification.release(account) if options["release"] else verification.verify(account)
        else:
            found = verification.verify(account)
        for mismatch in found:
            self.stdout.write(f"{mismatch.owner_id} {mismatch.code}: {mismatch.detail}")
        wallets = LedgerAccount.objects.filter(kind=LedgerAccount.Kind.WALLET)
        checked = wallets.of(account).count() if account else wallets.count()
        frozen = wallets.exclude(frozen_at=None).count()
        self.stdout.write(f"Verified {checked} wallets: {len(found)} mismatches, {frozen} frozen.")
        if found:
            raise CommandError("The ledger does not add up.")

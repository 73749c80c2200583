"""Give an account credits from the shell."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts.models import Account
from billing import money
from billing.services import ledger
from insighto.lib.errors import DomainError


class Command(BaseCommand):
    help = "Grants credits. The same --key again changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("account", help="slug")
        parser.add_argument("credits", help="for example 250 or 12.5")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--key", required=True, help="idempotency key: names this grant for ever")

    def handle(self, *args: Any, **options: Any) -> None:
        account = Account.objects.filter(slug=options["account"]).first()
        if account is None:
            raise CommandError("There is no such account.")
        try:
            transfer = ledger.grant(
                account=account,
                amount_micros=money.credits_to_micros(options["credits"]),
                reason=options["reason"],
                actor=None,
                idempotency_key=f"grant:{options['key']}",
            )
        except DomainError as error:
            raise CommandError(str(error)) from None
        balance = money.in_words(ledger.balance(account))
        self.stdout.write(f"Granted {money.in_words(transfer.amount_micros)} credits; balance {balance}.")

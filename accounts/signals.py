"""What other apps hang on: sent inside the transaction that made the change."""

from django.dispatch import Signal

account_created = Signal()  # account: the new Account

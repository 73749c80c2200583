"""The refusals of money. HTTP statuses are the gateway's business.

DomainError
├── BillingError
│   ├── InsufficientCredits        insufficient_credits
│   ├── WalletFrozen               wallet_frozen
│   ├── IdempotencyConflict        idempotency_conflict
│   ├── AmountOutOfRange           amount_out_of_range
│   ├── HoldNotOpen                hold_not_open
│   ├── LegUnknown                 leg_unknown
│   └── PriceUnknown               price_unknown
└── RouteRefused                   one code for each refusal of `routing.decide`
"""

from insighto.lib.errors import DomainError


class BillingError(DomainError):
    code = "billing_refused"


class InsufficientCredits(BillingError):
    code = "insufficient_credits"
    message = "There are not enough credits for this request. Add credits, or send a shorter request."


class WalletFrozen(BillingError):
    code = "wallet_frozen"
    message = "Credits of this account are stopped while its ledger is being checked. Nothing was charged."


class IdempotencyConflict(BillingError):
    code = "idempotency_conflict"
    message = "This idempotency key was already used for something else."


class AmountOutOfRange(BillingError):
    code = "amount_out_of_range"
    message = "This amount is negative or too large."


class HoldNotOpen(BillingError):
    code = "hold_not_open"
    message = "There is no such hold."


class LegUnknown(BillingError):
    code = "leg_unknown"
    message = "There is no such leg."


class PriceUnknown(BillingError):
    code = "price_unknown"
    message = "This model has no price, so it cannot be paid with credits."


class RouteRefused(DomainError):
    """The router's refusal as an error; `code` is the decision's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

"""The root of every refusal this product makes.

A `DomainError` is something a user, a provider or time can cause. Each app draws
its own tree in `<app>/errors.py`; HTTP statuses are the gateway's business.
"""


class DomainError(Exception):
    """A refusal with a stable `code` and a sentence a person can act on.

    `field` names the form field or request parameter at fault, where there is one.
    The message never carries a secret or provider text.
    """

    code = "refused"
    message = "This cannot be done."

    def __init__(self, message: str = "", *, field: str | None = None) -> None:
        super().__init__(message or self.message)
        self.field = field

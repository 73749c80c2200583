"""A string that cannot leave by accident."""

from typing import NoReturn


class Secret:
    """Holds plaintext that only `reveal()` gives back.

    It cannot be printed, formatted, compared, hashed, pickled, copied or serialised.
    `reveal()` may be called only in `provider_keys.services` and in the modules that
    make the outgoing call; a test holds the code to that.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a Secret cannot be compared, hashed, copied or serialised")

    __eq__ = _refuse
    __ne__ = _refuse
    __hash__ = _refuse
    __reduce__ = _refuse
    __reduce_ex__ = _refuse
    __copy__ = _refuse
    __deepcopy__ = _refuse
    __getstate__ = _refuse
    __len__ = _refuse
    __iter__ = _refuse
    __bool__ = _refuse

"""The type that carries plaintext. Named so that a change in `insighto.lib.secret` meets these tests."""

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.core.signing import dumps as sign
from django.template import Context, Template

from insighto.lib.secret import Secret

PLAIN = "sk-proj-this-must-not-be-seen-0123"
SECRET = Secret(PLAIN)


def test_only_reveal_gives_it_back() -> None:
    assert SECRET.reveal() == PLAIN


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031
        lambda secret: f"{[secret]} { {'key': secret} } {(secret,)}",
        lambda secret: Template("{{ secret }}{{ secret.value }}").render(Context({"secret": secret})),
        lambda secret: str(KeyError(secret)),
        lambda secret: str(getattr(secret, "__dict__", "")),
        lambda secret: str(dir(secret)),
    ],
)
def test_it_cannot_be_printed(show: Callable[[Secret], str]) -> None:
    assert PLAIN not in show(SECRET)


@pytest.mark.parametrize(
    "carry",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        lambda secret: json.dumps(secret, cls=DjangoJSONEncoder),
        sign,
        hash,
        len,
        list,
        bool,
        lambda secret: secret == PLAIN,
        lambda secret: secret != PLAIN,
        lambda secret: secret in [1, 2],
        lambda secret: {secret: 1},
        lambda secret: secret + "",
        lambda secret: "".join([secret]),
        lambda secret: secret[0],
        bytes,
        vars,
    ],
)
def test_it_cannot_be_compared_copied_or_serialised(carry: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError) as refusal:
        carry(SECRET)
    assert PLAIN not in "".join(traceback.format_exception(refusal.value))


def test_it_stays_out_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("tests").debug("%s %r", SECRET, {"key": SECRET})
    assert PLAIN not in caplog.text

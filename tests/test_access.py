"""Who may open what: every URL, by every role, with the account's own object, a foreign one and one that never was.

A URL that is missing from the table fails the run, so a new page cannot be forgotten. `OPEN` stands for whatever
a person who may do it gets (a page, a form with errors, a redirect); never a refusal and never a 500.
"""

import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from accounts.models import Account, Membership
from accounts.services import api_keys
from billing.models import Request
from gateway.models import Assistant, Message
from gateway.services import assistants
from insighto.sandbox import keys
from provider_keys.models import Provider
from provider_keys.services import connections
from tests import factories

pytestmark = pytest.mark.django_db

OPEN, SIGN_IN, FORBIDDEN, HIDDEN = "open", "sign-in", "forbidden", "hidden"
M, A = Membership.Role.MEMBER, Membership.Role.ADMIN


@dataclass(frozen=True)
class Rule:
    """One URL: its method, the lowest role it opens for, and what its object is made of."""

    method: str
    role: str | None  # None: nobody needs to be signed in
    target: str = ""  # which object of the account the URL names
    data: tuple[tuple[str, str], ...] = ()


TABLE: dict[str, Rule] = {
    "gateway:landing": Rule("get", None),
    "gateway:overview_show": Rule("get", M),
    "gateway:assistant_list": Rule("get", M),
    "gateway:assistant_add": Rule("get", A),
    "gateway:assistant_edit": Rule("get", A, "assistant"),
    "gateway:assistant_remove": Rule("post", A, "assistant"),
    "gateway:playground_show": Rule("get", M, "assistant"),
    "gateway:line_send": Rule("post", M, "assistant"),
    "gateway:line_speak": Rule("post", M, "line"),
    "gateway:line_receipts": Rule("get", M, "line"),
    "gateway:conversation_clear": Rule("post", M, "assistant"),
    "gateway:usage_list": Rule("get", M),
    "gateway:usage_export": Rule("get", M),
    "gateway:request_show": Rule("get", M, "request"),
    "billing:credit_show": Rule("get", M),
    "provider_keys:connection_list": Rule("get", M),
    "provider_keys:check_status": Rule("get", M),
    "provider_keys:slot_submit": Rule("post", A),
    "provider_keys:check_start": Rule("post", A),
    "provider_keys:switch_confirm": Rule("get", A),
    "provider_keys:switch_set": Rule("post", A),
    "provider_keys:connection_add": Rule("get", A, "provider"),
    "provider_keys:placeholder_add": Rule("post", A),
    "provider_keys:connection_rename": Rule("get", A, "connection"),
    "provider_keys:connection_replace": Rule("get", A, "connection"),
    "provider_keys:connection_remove": Rule("get", A, "connection"),
    "accounts:account_switch": Rule("post", M),
    "accounts:api_key_list": Rule("get", A),
    "accounts:api_key_issue": Rule("get", A),
    "accounts:api_key_revoke": Rule("get", A, "api_key"),
    "accounts:subaccount_list": Rule("get", A),
    "accounts:subaccount_add": Rule("post", A),
    "accounts:team_list": Rule("get", M),
    "accounts:member_add": Rule("post", A),
    "accounts:member_change": Rule("post", A, "membership"),
    "accounts:member_remove": Rule("post", A, "membership"),
    "accounts:activity_list": Rule("get", A),
    "accounts:activity_export": Rule("get", A),
}
# Sign-in and the operators' site have one rule each; their own libraries and tests hold the details.
PREFIXES = {"accounts/": "allauth: signed-out flows and one's own e-mail and second factor", "admin/": "operators only"}


def _patterns(resolver: URLResolver, prefix: str = "", namespace: str = "") -> Iterator[tuple[str, str]]:
    for entry in resolver.url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            yield from _patterns(entry, route, inner)
        elif isinstance(entry, URLPattern):
            yield route, f"{namespace}{entry.name}"


def test_every_url_is_in_the_table() -> None:
    listed = {name for route, name in _patterns(get_resolver()) if not route.startswith(tuple(PREFIXES))}

    assert listed == set(TABLE)


@dataclass(frozen=True)
class World:
    """Two unrelated main accounts and a subaccount, each with one object of every kind."""

    main: Account
    sub: Account
    other: Account
    people: dict[str, Any]
    objects: dict[tuple[Account, str], tuple[Any, ...]]


@pytest.fixture
def world() -> World:
    main, other = factories.make_account("Main"), factories.make_account("Other")
    sub = factories.make_subaccount(main, "Sub")
    people = {
        "member": factories.make_member(main, M),
        "admin": factories.make_member(main, A),
        "owner": factories.owner_of(main),
        "stranger": factories.owner_of(other),
        "sub_owner": factories.owner_of(sub),
        "operator": factories.make_user(operator=True),
    }
    objects: dict[tuple[Account, str], tuple[Any, ...]] = {}
    for account in (main, sub, other):
        owner = factories.owner_of(account)
        assistant = assistants.create(account=account, actor=owner, name="Nora", chat_model="gpt-6-luna")
        _, answer = assistants.say(assistant=assistant, user=owner, text="Hello")
        connection = connections.add(
            account=account,
            provider=Provider.OPENAI,
            key=keys.valid_key("openai", f"t{account.pk.hex[-8:]}"),
            name="OpenAI",
            actor=owner,
        )
        key, _ = api_keys.issue(account=account, name="Test", actor=owner)
        member = factories.make_member(account, M)
        objects |= {
            (account, "assistant"): (assistant.pk,),
            (account, "line"): (assistant.pk, answer.pk),
            (account, "connection"): (connection.pk,),
            (account, "api_key"): (key.pk,),
            (account, "membership"): (Membership.objects.of(account).get(user=member).pk,),
            (account, "request"): (_request(account),),
        }
    return World(main, sub, other, people, objects)


def _request(account: Account) -> uuid.UUID:
    return Request.objects.create(account=account, endpoint="/v1/chat/completions", state="finished").pk


def _unknown(target: str) -> tuple[Any, ...]:
    return {"line": (uuid.uuid4(), uuid.uuid4()), "membership": (2_000_000_000,)}.get(target, (uuid.uuid4(),))


def _ask(person: Any, rule: Rule, url: str) -> Any:
    client = Client(raise_request_exception=True)
    if person is not None:
        client.force_login(person)
        session = client.session  # freshly signed in, as far as pages that touch keys care
        session["account_authentication_methods_user"] = str(person.pk)
        session["account_authentication_methods"] = [{"method": "password", "at": time.time()}]
        session.save()
    return client.generic(rule.method.upper(), url, data="", content_type="application/x-www-form-urlencoded")


def _answer(response: Any) -> str:
    if response.status_code == 302 and "/accounts/login/" in response["location"]:
        return SIGN_IN
    return {403: FORBIDDEN, 404: HIDDEN}.get(response.status_code, OPEN if response.status_code < 500 else "broken")


def _expected(role: str, rule: Rule) -> str:
    if rule.role is None:
        return OPEN
    if role == "anonymous":
        return SIGN_IN
    if role == "operator":
        return HIDDEN  # an operator belongs to no account
    if rule.target == "line":
        return OPEN if role == "owner" else HIDDEN  # a conversation is the person's own
    if role in {"member", "admin", "owner"}:
        return OPEN if Membership.RANK[role] >= Membership.RANK[rule.role] else FORBIDDEN
    return HIDDEN if rule.target not in {"", "provider"} else OPEN  # others in their own account


@pytest.mark.parametrize("name", TABLE)
def test_each_role_meets_what_the_table_says(world: World, name: str) -> None:
    rule = TABLE[name]
    arguments = ("openai",) if rule.target == "provider" else world.objects.get((world.main, rule.target), ())
    url = reverse(name, args=arguments)
    # Those who are refused first: whoever may do it may also remove what the URL names.
    for role in ("anonymous", "stranger", "sub_owner", "operator", "member", "admin", "owner"):
        if name == "gateway:landing":
            continue
        answer = _answer(_ask(world.people.get(role), rule, url))
        expected = _expected(role, rule)
        if expected == OPEN and answer == HIDDEN and rule.method == "post":
            continue  # the one before, who also might, has removed it
        if role == "sub_owner" and name.startswith("accounts:subaccount"):
            expected = HIDDEN  # a subaccount has none of its own
        assert (role, answer) == (role, expected)


@pytest.mark.parametrize("name", [name for name, rule in TABLE.items() if rule.target not in {"", "provider"}])
def test_a_foreign_object_and_one_that_never_was_look_alike(world: World, name: str) -> None:
    rule = TABLE[name]
    for person, account in (("owner", world.other), ("owner", world.sub), ("sub_owner", world.main)):
        foreign = _ask(world.people[person], rule, reverse(name, args=world.objects[account, rule.target]))
        unknown = _ask(world.people[person], rule, reverse(name, args=_unknown(rule.target)))

        assert foreign.status_code == unknown.status_code == 404
        assert _without_tokens(foreign.content) == _without_tokens(unknown.content)
    assert Assistant.objects.count() == Message.objects.filter(role="assistant").count() == 3


def _without_tokens(body: bytes) -> bytes:
    return re.sub(rb'(csrfmiddlewaretoken" value="|x-csrftoken": ")[A-Za-z0-9]+', b"", body)


def test_the_operators_site_is_closed_to_everybody_else(world: World) -> None:
    for role in ("anonymous", "member", "owner", "stranger"):
        response = _ask(world.people.get(role), Rule("get", None), reverse("admin:index"))

        assert response.status_code in {302, 403}
    assert _ask(world.people["operator"], Rule("get", None), reverse("admin:index")).status_code == 200


def test_a_get_of_a_url_that_writes_is_refused(world: World) -> None:
    for name, rule in TABLE.items():
        if rule.method == "post":
            arguments = world.objects.get((world.main, rule.target), ())
            response = _ask(world.people["owner"], Rule("get", rule.role), reverse(name, args=arguments))

            assert (name, response.status_code) == (name, 405)

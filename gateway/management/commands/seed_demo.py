"""A small world to try the product in: two main accounts, a subaccount, people, credits, assistants, API keys."""

import json
import os
import secrets
from typing import Any

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts.models import Account, Membership, User
from accounts.services import api_keys, members, signup
from billing.money import MICROS_PER_CREDIT
from billing.services import ledger
from gateway.models import Assistant
from gateway.services import assistants
from insighto.sandbox import keys
from provider_keys.models import PlatformCredential, Provider
from provider_keys.services import platform_credentials

OPERATOR = "operator@insighto.test"
# e-mail, person, account, role; the first person of an account is its owner and creates it.
PEOPLE = [
    ("owner@northwind.test", "Olivia Owner", "Northwind Studio", Membership.Role.OWNER),
    ("member@northwind.test", "Max Member", "Northwind Studio", Membership.Role.MEMBER),
    ("retail@northwind.test", "Rosa Retail", "Northwind Retail", Membership.Role.OWNER),
    ("owner@contoso.test", "Chris Contoso", "Contoso Labs", Membership.Role.OWNER),
]
PARENTS = {"Northwind Retail": "Northwind Studio"}
CREDITS = {"Northwind Studio": 500, "Northwind Retail": 120, "Contoso Labs": 250}
AZURE_VOICE = ("en-US-AvaNeural", "Ava")
ELEVENLABS_VOICE = ("SandboxVoiceAmber006", "Amber")
ASSISTANTS = [
    (
        "Nora",
        "You are Nora, who welcomes visitors of a design studio. Be warm and brief.",
        Provider.AZURE_SPEECH,
    ),
    (
        "Elliot",
        "You are Elliot, who tells the story behind each project. Speak in vivid, short sentences.",
        Provider.ELEVENLABS,
    ),
]


class Command(BaseCommand):
    help = (
        "Seed the demo once and write var/demo.json (mode 600). Run again: nothing is added; if the file is gone, "
        "the demo people get new passwords and new API keys, because neither can be read back."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("The demo's accounts have no place in production.")
        path = settings.VAR_DIR / "demo.json"
        if path.exists() and User.objects.filter(email=OPERATOR).exists():
            self.stdout.write("The demo is already there.")
            return
        with transaction.atomic():
            world = _seed()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(world, file, indent=2)
        self.stdout.write(f"Seeded {len(CREDITS)} accounts and {len(PEOPLE) + 1} people.")


def _seed() -> dict[str, Any]:
    operator, operator_password = _person(OPERATOR, "Platform operator")
    User.objects.filter(pk=operator.pk).update(is_staff=True, is_superuser=True)
    if settings.SANDBOX:
        _platform_credentials(operator)
    accounts: dict[str, Account] = {}
    people = []
    for email, name, account_name, role in PEOPLE:
        user, password = _person(email, name)
        if account_name not in accounts:
            accounts[account_name] = _account(account_name, user, accounts)
        account = accounts[account_name]
        if not Membership.objects.of(account).filter(user=user).exists():
            members.add(account=account, email=email, role=role, actor=_owner(account))
        people.append({"email": email, "password": password, "account": account_name, "role": role.value})
    issued = []
    for account_name, account in accounts.items():
        owner = _owner(account)
        ledger.grant(
            account=account,
            amount_micros=CREDITS[account_name] * MICROS_PER_CREDIT,
            reason="Welcome credits",
            actor=operator,
            idempotency_key="demo-welcome",
        )
        _assistants(account, owner)
        _, token = api_keys.issue(account=account, name="Demo", actor=owner)
        issued.append({"account": account_name, "key": token.reveal()})
    return {
        "url": settings.PUBLIC_URL,
        "sandbox_url": settings.SANDBOX_URL,
        "operator": {"email": OPERATOR, "password": operator_password},
        "people": people,
        "api_keys": issued,
    }


def _person(email: str, name: str) -> tuple[User, str]:
    password = secrets.token_urlsafe(9)
    user = User.objects.filter(email=email).first() or User.objects.create_user(email, name=name)
    user.set_password(password)
    user.save(update_fields=["password"])
    EmailAddress.objects.update_or_create(user=user, email=email, defaults={"primary": True, "verified": True})
    return user, password


def _owner(account: Account) -> User:
    return Membership.objects.of(account).filter(role=Membership.Role.OWNER).select_related("user").earliest("pk").user


def _account(name: str, owner: User, known: dict[str, Account]) -> Account:
    found = Account.objects.filter(name=name, memberships__user=owner).first()
    if found is not None:
        return found
    parent = PARENTS.get(name)
    if parent is None:
        return signup.create_account(name=name, owner=owner)
    return signup.create_subaccount(
        parent=known[parent], name=name, owner_email=owner.email, actor=_owner(known[parent])
    )


def _assistants(account: Account, owner: User) -> None:
    if Assistant.objects.of(account).exists():
        return
    for name, instructions, provider in ASSISTANTS:
        is_azure = provider == Provider.AZURE_SPEECH
        voice, voice_name = AZURE_VOICE if is_azure else ELEVENLABS_VOICE
        assistants.create(
            account=account,
            actor=owner,
            name=name,
            instructions=instructions,
            chat_model="gpt-6-luna",
            voice_provider=provider.value,
            voice=voice,
            voice_name=voice_name,
            speech_model="" if is_azure else "eleven_flash_v2_5",
            language="en-US",
        )


def _platform_credentials(operator: User) -> None:
    """The sandbox's keys stand in for the platform's own; with real providers an operator enters real ones."""
    stored = set(PlatformCredential.objects.values_list("provider", flat=True))
    for provider in Provider:
        if provider.value in stored:
            continue
        region = keys.DEFAULT_REGION if provider == Provider.AZURE_SPEECH else ""
        platform_credentials.put(
            provider=provider.value,
            key=keys.valid_key(provider.value, "platform", region=region),
            region=region,
            actor=operator,
        )

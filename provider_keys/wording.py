"""The words pages have for a stored key: headline, advice, tone. Pure; facts come from `readiness`.

The two messages the product quotes are kept to the letter: "OpenAI Key Validated Successfully" and
"Azure Key Invalid – Please check and re-enter". Every state and every reason has a sentence here, and
the sentence says what to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from provider_keys.models import Attempt, Provider
from provider_keys.readiness import BRANDS, State, Status

Tone = Literal["ok", "bad", "warn", "idle", "busy"]


@dataclass(frozen=True, slots=True)
class Words:
    """One message about one key, and the short form beside its name."""

    tone: Tone
    headline: str
    advice: str
    short: str


@dataclass(frozen=True, slots=True)
class Help:
    """How a customer gets a key: where, and with which rights at least."""

    console: str
    address: str
    steps: tuple[str, ...]
    least: str


_NOTHING_SELECTED = "Add a connection, choose it here and press Submit."

_STATES: Final[Mapping[State, tuple[Tone, str, str, str]]] = {
    State.VALID: ("ok", "{brand} Key Validated Successfully", "", "Valid"),
    State.CANNOT_BE_CHECKED: (
        "ok",
        "{brand} Key Recognised – Cannot Be Checked Without Spending",
        "Its rights forbid the free test calls. It may serve perfectly well; the first real request will show.",
        "Recognised",
    ),
    State.UNTESTED: ("idle", "{brand} Key Not Checked Yet", "Press Check Status to ask {brand}.", "Not checked"),
    State.REJECTED_ONCE: (
        "warn",
        "{brand} Key Rejected – Checking Again",
        "It worked before, so we ask a second time within a minute before we believe it.",
        "Rejected once",
    ),
    State.INVALID: ("bad", "{brand} Key Invalid – Please check and re-enter", "", "Invalid"),
    State.RESTRICTED: (
        "bad",
        "{brand} Key Lacks a Permission – Please allow it and check again",
        "",
        "Lacks a permission",
    ),
    State.QUOTA_EXHAUSTED: (
        "bad",
        "{brand} Account Has No Quota – Please add credit or raise its limit",
        "The key itself is right. Pay or raise the limit at {brand}, then check again.",
        "No quota",
    ),
    State.REGION_MISMATCH: (
        "bad",
        "{brand} Key Belongs to Another Region – Please correct the region",
        "Enter the key again with the region its resource was made in.",
        "Wrong region",
    ),
    State.NOT_USED: ("idle", "{brand} Not Used", "Nothing is stored and nothing is ever sent.", "Not used"),
    State.LOCKED: (
        "warn",
        "{brand} Key Locked – Our operators have been told",
        "It is stored safely but cannot be opened at the moment. You need not do anything.",
        "Locked",
    ),
    State.ELSEWHERE: (
        "bad",
        "{brand} Key Was Stored for Another Address – Please re-enter",
        "A key opens only for the address it was stored for.",
        "Enter again",
    ),
}

_ADVICE: Final[Mapping[str, str]] = {
    "wrong_key": "{brand} does not know this key. Copy it once more, whole, or make a new one.",
    "wrong_key_or_region": "Wrong key or wrong region: {brand} does not say which. Compare both with the portal.",
    "deactivated": "{brand} has deactivated the account this key belongs to.",
    "missing_permission": "Allow the permissions listed under “How to get your API key”, then check again.",
    "admin_key": "This is an admin key, which cannot run requests. Make an ordinary project key.",
    "organization": "The key's organization does not match. Make a key in the organization you use.",
    "project": "The key's project does not match. Make a key in the project you use.",
    "address_not_allowed": "The key admits certain addresses only. Add ours to its list, or lift the restriction.",
    "network_rule": "The resource admits certain networks only. Open it to our address in its network settings.",
    "keys_disabled": "Signing in with keys is disabled on this resource. Enable it, or use another resource.",
    "no_model_access": "The key's project has no access to the model. Allow it in the project's limits.",
    "unusual_activity": "{brand} has paused the account for unusual activity. Clear it there, then check again.",
    "plan": "The plan at {brand} does not include this. Change the plan, then check again.",
    "account_disabled": "The account at {brand} is disabled. Enable it there, then check again.",
    "forbidden": "{brand} refused the key access. Look at its permissions there, then check again.",
    "wrong_host": "The key belongs to another region of {brand} than the one we use.",
}

_ATTEMPTS: Final[Mapping[str, tuple[str, str, str]]] = {
    Attempt.RATE_LIMITED: (
        "{brand} Is Rate-Limiting This Key – Please check again in a minute",
        "This says nothing about the key.",
        "Rate-limited",
    ),
    Attempt.UNREACHABLE: (
        "{brand} Could Not Be Reached – Please check again later",
        "This says nothing about the key.",
        "Unreachable",
    ),
}

_UNREACHABLE: Final[Mapping[str, str]] = {
    "timeout": "{brand} took too long to answer.",
    "connect": "No connection to {brand} came about.",
    "tls": "The secure connection to {brand} failed.",
    "dropped": "{brand} dropped the connection.",
    "redirect": "The answer pointed elsewhere; keys are never sent along.",
    "server_error": "{brand} has a fault of its own.",
    "country": "{brand} does not serve the country of our server.",
    "bad_body": "What answered was not {brand}.",
    "unknown_answer": "{brand} answered something we do not know.",
    "too_big": "What answered was not {brand}.",
    "gave_up": "The check could not be finished.",
}

PURPOSES: Final[Mapping[str, str]] = {
    Provider.OPENAI: "Powers chat and AI responses",
    Provider.AZURE_SPEECH: "Text-to-speech, Azure voices",
    Provider.ELEVENLABS: "Only for ElevenLabs voices on assistants",
}

HELP: Final[Mapping[str, Help]] = {
    Provider.OPENAI: Help(
        console="OpenAI Platform",
        address="https://platform.openai.com/api-keys",
        steps=(
            "Sign in to the OpenAI Platform and open API keys.",
            "Choose “Create new secret key” in the project that should pay.",
            "Under Permissions choose Restricted, allow the two below, and create the key.",
            "Copy it at once: OpenAI shows it only this time.",
        ),
        least="Least privilege: Models – Read, and Model capabilities – Write. Nothing else.",
    ),
    Provider.AZURE_SPEECH: Help(
        console="Azure portal",
        address="https://portal.azure.com/#view/Microsoft_Azure_ProjectOxford/CognitiveServicesHub/~/SpeechServices",
        steps=(
            "Sign in to the Azure portal and create or open a Speech resource.",
            "Open Keys and Endpoint.",
            "Copy KEY 1 or KEY 2, and the Location/Region beside it, such as westeurope.",
        ),
        least="Least privilege: a resource of kind Speech only, so that the key opens no other service.",
    ),
    Provider.ELEVENLABS: Help(
        console="ElevenLabs dashboard",
        address="https://elevenlabs.io/app/settings/api-keys",
        steps=(
            "Sign in to ElevenLabs, open Developers, then API Keys.",
            "Choose Create Key and restrict it to the permissions below.",
            "Copy it at once: ElevenLabs shows it only this time.",
        ),
        least="Least privilege: Text to Speech – Access, Voices – Read, Models – Read, User – Read. Set a limit.",
    ),
}


def words(provider: str, status: Status | None) -> Words:
    """What the page says about the connection in a slot; None is an empty slot."""
    brand = BRANDS[provider]
    if status is None:
        return Words("idle", "No connection selected", _NOTHING_SELECTED, "Empty")
    if status.is_checking and status.state is not State.NOT_USED:
        return Words(
            "busy", f"Checking the {brand} key…", f"{brand} has been asked; the answer appears here.", "Checking"
        )
    tone, headline, advice, short = _STATES[status.state]
    advice = _ADVICE.get(status.verdict_reason, advice) if tone == "bad" else advice
    if status.attempt in _ATTEMPTS and status.state not in (State.NOT_USED, State.LOCKED, State.ELSEWHERE):
        said = short
        tone = "warn"
        headline, nothing, short = _ATTEMPTS[status.attempt]
        cause = _UNREACHABLE.get(status.attempt_reason, "") if status.attempt == Attempt.UNREACHABLE else ""
        stays = f"The last verdict stays: {said.lower()}." if status.verdict_at else "There is no verdict yet."
        advice = " ".join(part for part in (cause or nothing, stays) if part)
    return Words(tone, headline.format(brand=brand), advice.format(brand=brand), short)


def saved(provider: str, *, is_placeholder: bool) -> str:
    """What the page says once a connection is stored."""
    if is_placeholder:
        return f"{BRANDS[provider]} is marked as not used"
    return f"Your {BRANDS[provider]} key is now saved"

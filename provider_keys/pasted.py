"""What people paste into the key, name and region fields, and what it turns out to be. Pure.

Refusals never repeat what was typed: it may be a key, whatever the field.
"""

import re
import unicodedata
from typing import Final

from provider_keys.errors import KeyIsExample, KeyMalformed, NameRefused
from provider_keys.models import REQUIRED_PROVIDERS, Provider

NAME_LENGTH: Final = 60
LAST_FOUR_FROM: Final = 12  # a shorter key would be half shown by its last four characters

_KEY = re.compile(r"[\x21-\x7e]{8,256}")
_EDGES = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad\"'“”‘’„‚«»`"
_EXAMPLE_WORDS: Final = frozenset({"none", "null", "todo", "test", "dummy", "changeme"})
_EXAMPLE = re.compile(r"your.*key|<.*>|\$\{.*\}|\{\{.*\}\}|here$|…|\.\.\.$|x{4,}$", re.IGNORECASE | re.DOTALL)
_NOT_USED: Final = frozenset({"dummy", "i don't use elevenlabs"})

_AZURE_84 = re.compile(r"[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{18}ACOG[A-Za-z0-9]{4}")
_HEX_32 = re.compile(r"[0-9a-f]{32}")
_ELEVENLABS_SK = re.compile(r"sk_[0-9a-f]{48}")
_OPENAI_SK = re.compile(r"sk-(proj|svcacct|None|admin)?-?[A-Za-z0-9_-]+")
_KEY_IN_TEXT = re.compile(r"(?<![A-Za-z0-9])sk[-_][A-Za-z0-9_-]{12,}|[A-Za-z0-9]{30,}")


def cleaned(typed: str) -> str:
    """`typed` without what copying adds around a key: spaces, line ends, invisible characters, quotes."""
    before = None
    while before != typed:
        before, typed = typed, typed.strip().strip(_EDGES)
    return typed


def says_not_used(provider: str, typed: str) -> bool:
    """The customer says that they do not use this optional provider."""
    text = cleaned(typed).replace("’", "'").rstrip(".").casefold()
    return provider not in REQUIRED_PROVIDERS and text in _NOT_USED


def key(typed: str) -> str:
    """The key in what was pasted. Raises `KeyIsExample` or `KeyMalformed`."""
    text = cleaned(typed)
    if not text:
        raise KeyIsExample("Paste the key.", field="key")
    if is_example(text):
        raise KeyIsExample(field="key")
    if not _KEY.fullmatch(text):
        raise KeyMalformed(field="key")
    return text


def is_example(text: str) -> bool:
    """A placeholder out of somebody's documentation, not a key."""
    return (
        text.casefold() in _EXAMPLE_WORDS
        or len(set(text)) < 5  # also one repeated character
        or _EXAMPLE.search(text) is not None
    )


def shape(provider: str, text: str) -> str:
    """Which of the known forms the key has, for the row beside it: at most 24 characters, never part of the secret."""
    if match := _OPENAI_SK.fullmatch(text):
        return f"sk-{match[1]}" if match[1] else "sk"
    if _ELEVENLABS_SK.fullmatch(text):
        return "sk_hex48"
    if _AZURE_84.fullmatch(text):
        return "azure84"
    return "hex32" if _HEX_32.fullmatch(text) else "other"


def is_admin_key(provider: str, text: str) -> bool:
    """A key that administers an OpenAI organization: genuine, and unable to do inference whatever anyone says."""
    return provider == Provider.OPENAI and text.startswith("sk-admin-")


def hints(provider: str, typed: str) -> list[str]:
    """What looks odd about a key. Advice only: formats change without notice, so nothing is refused for it."""
    text = cleaned(typed)
    if provider == Provider.OPENAI:
        return _openai_hints(text)
    if text.startswith("sk-ant-"):
        return ["This looks like an Anthropic key."]
    if text.startswith("sk-"):
        return ["This looks like an OpenAI key."]
    if provider == Provider.AZURE_SPEECH:
        if _ELEVENLABS_SK.fullmatch(text):
            return ["This looks like an ElevenLabs key."]
        if shape(provider, text) not in ("azure84", "hex32"):
            return ["Azure Speech keys are 84 letters and digits long, older ones 32. Was this one cut?"]
    elif shape(provider, text) not in ("sk_hex48", "hex32"):
        said = "an Azure key" if shape(provider, text) == "azure84" else "something else"
        return [f"ElevenLabs keys begin with sk_ and 48 more characters; this looks like {said}."]
    return []


def connection_name(typed: str) -> str:
    """A name as shown; empty when none was given. Raises `NameRefused`."""
    text = unicodedata.normalize("NFC", typed.strip())
    if any(unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp") for char in text):
        raise NameRefused("A name cannot contain control or invisible characters.", field="name")
    if len(text) > NAME_LENGTH:
        message = f"A name has {NAME_LENGTH} characters at most."
        raise NameRefused(message, field="name")
    if looks_like_key(text):
        raise NameRefused("This looks like a key, and a name is shown. Paste it into the key field.", field="name")
    return text


def looks_like_key(text: str) -> bool:
    """Somewhere in it is what may be a key, so no page repeats it."""
    return _KEY_IN_TEXT.search(text) is not None


def last_four(text: str) -> str:
    return text[-4:] if len(text) >= LAST_FOUR_FROM else ""


def _openai_hints(text: str) -> list[str]:
    if text.startswith("sk-ant-"):
        return ["This looks like an Anthropic key."]
    if text.startswith("sk_"):
        return ["This looks like an ElevenLabs key."]
    if text.startswith("sk-admin-"):
        return ["This is an admin key: it manages an OpenAI organization and cannot answer chats. Use a project key."]
    if not text.startswith("sk-"):
        return ["OpenAI keys begin with sk-. Is this one from another provider?"]
    return []

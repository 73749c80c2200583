"""What the sandbox's assistant says: several sentences about what was asked, always the same for the same prompt."""

import hashlib
import re
from typing import Any

# fmt: off
_STOP = frozenset([
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "get", "give", "good", "had", "has", "have", "hello", "help", "hey", "hi", "how", "i",
    "if", "in", "into", "is", "it", "its", "just", "know", "like", "make", "me", "may", "might", "more", "my",
    "need", "no", "not", "of", "on", "one", "or", "our", "please", "say", "should", "so", "some", "tell", "than",
    "thank", "thanks", "that", "the", "their", "them", "there", "these", "they", "this", "to", "too", "us", "very",
    "want", "was", "we", "what", "when", "where", "which", "who", "why", "will", "with", "would", "write", "yes",
    "you", "your", "explain", "describe", "show", "list",
])
# fmt: on
_OPENINGS = {
    "greeting": ["Hello, and good to hear from you.", "Hi there, glad you stopped by."],
    "how": [
        "The short answer to “{topic}”: start small and keep what works.",
        "With a question like “{topic}”, the order of the steps matters more than the speed.",
    ],
    "why": [
        "There are usually two reasons behind “{topic}”.",
        "A good part of the answer to “{topic}” is history.",
    ],
    "what": [
        "“{topic}” is easiest to understand with an example.",
        "Here is how I would put “{topic}” in plain words.",
    ],
    "where": [
        "When it comes to “{topic}”, it depends a little on where you start.",
        "For “{topic}”, the answer is usually closer than people think.",
    ],
    "order": ["Gladly, here is something on “{topic}”.", "Of course, let me take “{topic}” as the subject."],
    "other": ["Thank you, I have taken note of “{topic}”.", "That is a fair point about “{topic}”."],
}
_MIDDLES = [
    "First, look at what you already have, because most of it is decided there.",
    "People who deal with this every day tend to agree on one thing: write it down, then try it once.",
    "A simple picture helps: think of it as a path with two or three clear turns.",
    "If you remember only one thing, let it be the first step.",
    "It also helps to ask who else cares about it, since they often know the pitfalls.",
    "In practice it takes less time than expected, and the second attempt goes much better.",
]
_WELCOMES = [
    "I can answer questions, explain things step by step, or simply keep you company.",
    "Ask me anything you like, and I will do my best to answer in a few sentences.",
]
_ENDINGS = [
    "Would you like me to go into the details?",
    "Tell me a little more, and I can be more specific.",
    "If that helps, we can continue with the next question.",
    "I am happy to go on from here.",
]
_GREETING = re.compile(r"\s*(hi|hello|hey|good (morning|afternoon|evening))\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?\n]+")
_WORD = re.compile(r"[^\W_][\w’'-]*")


def compose(prompt: str, *, variant: int = 0) -> str:
    """Four sentences that pick up the words of the prompt. Another `variant` words them another way."""
    seed = hashlib.sha256(f"{variant}|{prompt}".encode("utf-8", "surrogatepass")).digest()
    kind = _kind(prompt)
    middles = _WELCOMES if kind == "greeting" else _MIDDLES
    first = seed[1] % len(middles)
    second = (first + 1 + seed[2] % (len(middles) - 1)) % len(middles)
    openings = _OPENINGS[kind]
    sentences = [
        openings[seed[0] % len(openings)].replace("{topic}", topic_of(prompt)),
        middles[first],
        middles[second],
        _ENDINGS[seed[3] % len(_ENDINGS)],
    ]
    return " ".join(sentences)


def after_tool(result: str) -> str:
    """The answer once a tool has been called."""
    shown = " ".join(result.split())[:200] or "nothing"
    return f"I looked it up for you. The answer I got is: {shown}. Tell me if you need anything else."


def topic_of(prompt: str) -> str:
    """What the prompt's first sentence is about: from its first telling word to its fourth, seven words at most."""
    for sentence in _SENTENCE_END.split(prompt[:4_000]):
        words = _WORD.findall(sentence)
        telling = [place for place, word in enumerate(words) if word.lower() not in _STOP and len(word) < 40]
        if telling:
            last = max(place for place in telling[:4] if place < telling[0] + 7)
            return " ".join(words[telling[0] : last + 1])
    return "your question"


def example(schema: Any, depth: int = 0) -> Any:
    """A value that fits a JSON schema well enough: for tool arguments and structured answers."""
    if not isinstance(schema, dict) or depth > 6:
        return "example"
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for choice in ("anyOf", "oneOf"):
        if isinstance(schema.get(choice), list) and schema[choice]:
            return example(schema[choice][0], depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0] if kind else "string"
    if kind == "object":
        properties = schema.get("properties")
        return {
            str(name): example(part, depth + 1)
            for name, part in list(properties.items() if isinstance(properties, dict) else [])[:50]
        }
    if kind == "array":
        return [example(schema.get("items", {"type": "string"}), depth + 1)]
    return {"integer": 1, "number": 1.5, "boolean": True, "null": None}.get(str(kind), "example")


def _kind(prompt: str) -> str:
    words = prompt.lower().split()
    first = words[0].strip(",.!?") if words else ""
    if _GREETING.match(prompt) and len(words) < 8:
        return "greeting"
    if first in ("how", "why", "what", "where"):
        return first
    if first in ("when", "who", "which"):
        return "where"
    return "order" if first in ("write", "tell", "give", "explain", "describe", "list", "show", "please") else "other"

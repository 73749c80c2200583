"""The sandbox's own way of counting tokens: four bytes of UTF-8 to a token, rounded up. Exact and repeatable."""

import json
from typing import Any

BYTES_PER_TOKEN = 4
PER_MESSAGE = 3
PER_ANSWER = 3
PER_IMAGE = 85


def count(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def cut(text: str, tokens: int) -> str:
    """The longest beginning of `text` that is at most so many tokens."""
    return text.encode("utf-8", "surrogatepass")[: tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")


def of_content(content: Any) -> int:
    """A message's content: a text, or parts of text and images."""
    if isinstance(content, str):
        return count(content)
    if not isinstance(content, list):
        return 0
    total = 0
    for part in content:
        if isinstance(part, dict):
            text = part.get("text", part.get("refusal", ""))
            total += count(text) if isinstance(text, str) else 0
            total += PER_IMAGE if str(part.get("type", "")) in ("image_url", "input_image") else 0
    return total


def of_messages(messages: list[Any], tools: Any = None) -> int:
    total = PER_ANSWER
    for message in messages:
        if isinstance(message, dict):
            total += PER_MESSAGE + of_content(message.get("content"))
            total += count(json.dumps(message["tool_calls"])) if message.get("tool_calls") else 0
    return total + (count(json.dumps(tools, ensure_ascii=False)) if tools else 0)


def text_of(content: Any) -> str:
    """The words in a message's content."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return ""

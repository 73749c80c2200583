"""Azure's WebSocket for synthesis, as the native SDK speaks it: text messages with headers, sound in binary ones.

A turn: the SDK sends `speech.config`, `synthesis.context` (the output format) and `ssml`; the answer is `turn.start`,
`response`, the sound in `audio` messages, `turn.end`. A connection may serve several turns.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

from insighto.sandbox import audio, azure_speech, faults, journal
from insighto.sandbox.azure_speech import PREFIX, PROVIDER, Spoken
from insighto.sandbox.call import CHECK, USE, Call, Handler, endpoint
from insighto.sandbox.keys import Outcome

PATH = "/cognitiveservices/websocket/v1"
LARGEST_MESSAGE = 128 * 1024
IDLE_S = 120.0
MOST_TURNS = 200
BREAK_AFTER = 3
WORD_TICKS = 3_000_000
_DEFAULT_FORM = "raw-16khz-16bit-mono-pcm"


@dataclass(frozen=True, slots=True)
class Message:
    path: str
    request_id: str
    body: str


def routes() -> list[tuple[str, str, Handler]]:
    handler = endpoint(PROVIDER, USE, converse)
    found = [("GET", prefix + PATH, handler) for prefix in ("", "/tts", PREFIX, f"{PREFIX}/tts")]
    return [*found, ("*", PREFIX + "/{rest:.*}", endpoint(PROVIDER, CHECK, nowhere))]


async def nowhere(call: Call) -> web.StreamResponse:
    return web.Response(status=404, headers=call.headers)


def read_message(text: str) -> Message:
    head, _, body = text.partition("\r\n\r\n")
    headers = {}
    for line in head.split("\r\n")[:30]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Message(headers.get("path", "").lower(), headers.get("x-requestid", "")[:64], body)


async def converse(call: Call) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=("USP",), max_msg_size=LARGEST_MESSAGE, receive_timeout=IDLE_S)
    socket.headers.update(call.headers)
    await socket.prepare(call.request)
    call.entry.streamed = True
    form_name, has_words, turns, entry = _DEFAULT_FORM, False, 0, call.entry
    try:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                continue
            told = read_message(message.data)
            if told.path == "synthesis.context":
                form_name, has_words = _form_name(told.body), _wants_words(told.body)
            elif told.path == "ssml":
                turns += 1
                if turns > 1:
                    entry = _next_entry(call)
                await _turn(call, socket, entry, told, form_name, has_words=has_words)
                journal.close(entry, status=101)
                if turns >= MOST_TURNS:
                    break
    except TimeoutError:  # Nothing came for too long.
        journal.close(entry, status=101, state="left")
    await socket.close()
    return socket


async def _turn(
    call: Call,
    socket: web.WebSocketResponse,
    entry: journal.Entry,
    told: Message,
    form_name: str,
    *,
    has_words: bool,
) -> None:
    spoken = azure_speech.read_ssml(told.body.encode())
    form = azure_speech.form_of(form_name)
    if spoken is None or form is None:
        reason = b"Unsupported voice or malformed SSML." if spoken is None else b"Unsupported output format."
        await socket.close(code=1007, message=reason)
        return
    entry.voice, entry.units = spoken.voice, azure_speech.billable_characters(spoken.text)
    await _send_sound(call, socket, entry, told, spoken, form, has_words=has_words)


async def _send_sound(
    call: Call,
    socket: web.WebSocketResponse,
    entry: journal.Entry,
    told: Message,
    spoken: Spoken,
    form: audio.Form,
    *,
    has_words: bool,
) -> None:
    stream_id = told.request_id.upper()

    async def say(path: str, body: dict[str, Any]) -> None:
        head = f"X-RequestId:{told.request_id}\r\nContent-Type:application/json; charset=utf-8\r\nPath:{path}\r\n\r\n"
        await socket.send_str(head + json.dumps(body))

    context = {"serviceTag": call.entry.request_id}
    await say("turn.start", {"context": context})
    await say("response", {"context": context, "audio": {"type": "inline", "streamId": stream_id}})
    if call.outcome is Outcome.DIES_BEFORE_FIRST_BYTE:
        faults.cut(call, socket, status=101)
    head = (
        f"X-RequestId:{told.request_id}\r\nContent-Type:{form.content_type}\r\nX-StreamId:{stream_id}\r\nPath:audio\r\n"
    ).encode()
    pause_s = call.sandbox.slow_stream_s if call.outcome is Outcome.SLOW_STREAM else call.sandbox.chunk_delay_s
    for number, piece in enumerate(audio.speak(spoken.text, voice=azure_speech.PITCH[spoken.voice], form=form)):
        if call.outcome is Outcome.BREAKS_MID_STREAM and number >= BREAK_AFTER:
            faults.cut(call, socket, status=101)
        if number and pause_s:
            await asyncio.sleep(pause_s)
        await socket.send_bytes(len(head).to_bytes(2, "big") + head + piece)
        entry.sent_bytes += len(piece)
    for place, word in enumerate(spoken.text.split() if has_words else ()):
        await say("audio.metadata", {"Metadata": [_boundary(place, word)]})
    await say("turn.end", {})


def _next_entry(call: Call) -> journal.Entry:
    first = call.entry
    entry = call.sandbox.calls.open(
        provider=first.provider,
        operation=first.operation,
        method=first.method,
        path=first.path,
        tag=first.tag,
        outcome=first.outcome,
        request_id=first.request_id,
    )
    entry.region, entry.streamed = first.region, True
    return entry


def _boundary(place: int, word: str) -> dict[str, Any]:
    """When a word is heard, in ticks of 100 ns."""
    data = {
        "Offset": place * WORD_TICKS,
        "Duration": WORD_TICKS,
        "text": {"Text": word, "Length": len(word), "BoundaryType": "WordBoundary"},
    }
    return {"Type": "WordBoundary", "Data": data}


def _wants_words(body: str) -> bool:
    try:
        return str(json.loads(body)["synthesis"]["audio"]["metadataOptions"]["wordBoundaryEnabled"]).lower() == "true"
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _form_name(body: str) -> str:
    try:
        return str(json.loads(body)["synthesis"]["audio"]["outputFormat"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return _DEFAULT_FORM

"""OpenAI's protocol as far as the product uses it (provider-contracts §3)."""

import base64
import hashlib
import itertools
import json
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from insighto.sandbox import answers, audio, faults, keys, tokens
from insighto.sandbox.call import CHECK, USE, Call, Handler, Provider, answer_json, endpoint, read_object
from insighto.sandbox.keys import Outcome

PREFIX = "/openai/v1"
DEFAULT_MAX_TOKENS = 4_096
MOST_CHOICES = 8
LARGEST_RECORDING = 25 * 1024 * 1024

# id, made at, shut down on (provider-contracts §3.5); the end dates are what the provider announced.
MODELS: dict[str, tuple[int, str | None]] = {
    "gpt-6-luna": (1790000000, None),
    "gpt-6-sol": (1790000000, None),
    "gpt-6.1-sol": (1791000000, None),
    "gpt-6.1-terra": (1791000000, None),
    "gpt-6.2-sol": (1793000000, None),
    "gpt-6.2-astra": (1793000000, None),
    "gpt-5.6-luna": (1780000000, None),
    "gpt-5.6-sol": (1780000000, None),
    "gpt-5.5": (1776000000, None),
    "gpt-5.4": (1772000000, None),
    "gpt-5.4-mini": (1772000000, None),
    "gpt-5.4-nano": (1772000000, "2027-04-01"),
    "gpt-5.1": (1762000000, "2027-04-01"),
    "gpt-5": (1754000000, "2026-12-11"),
    "gpt-5-mini": (1754000000, "2026-12-11"),
    "gpt-5-nano": (1754000000, "2026-12-11"),
    "o3": (1744000000, "2026-12-11"),
    "gpt-4.1": (1744000000, "2027-01-14"),
    "gpt-4.1-mini": (1744000000, "2027-01-14"),
    "gpt-4o": (1715367049, "2027-01-14"),
    "gpt-4o-mini": (1721172741, "2027-01-14"),
    "text-embedding-3-small": (1705948997, None),
    "text-embedding-3-large": (1705953180, None),
    "tts-1": (1681940951, "2027-01-06"),
    "tts-1-hd": (1699046015, "2027-01-06"),
    "gpt-4o-mini-tts": (1742403959, "2027-01-06"),
    "whisper-1": (1677532384, "2027-02-26"),
    "gpt-transcribe": (1785000000, None),
}
_EMBEDDING_SIZES = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
_SPEECH_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
_LISTENING_MODELS = ("whisper-1", "gpt-transcribe")
_SPEECH_FORMATS = {
    "mp3": audio.Form("mp3", 24_000, 64),
    "wav": audio.Form("wav", 24_000),
    "pcm": audio.Form("pcm", 24_000),
}
_SPEECH_VOICES = [
    "onyx",
    "echo",
    "ash",
    "fable",
    "alloy",
    "sage",
    "ballad",
    "verse",
    "coral",
    "shimmer",
    "nova",
    "marin",
    "cedar",
]


def presented(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def standing_headers(request_id: str) -> dict[str, str]:
    return {
        "x-request-id": f"req_{request_id}",
        "openai-version": "2020-10-01",
        "openai-processing-ms": "42",
    }


def error(
    call: Call,
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return answer_json(call, body, status=status, headers=headers)


def refuse(call: Call) -> web.Response | None:
    """The answer a key gets instead of what it asked for, or None."""
    in_use = call.operation == USE
    match call.outcome:
        case Outcome.INVALID if not call.presented:
            return error(call, 401, "You didn't provide an API key. You need to provide your API key in a header.")
        case Outcome.INVALID:
            message = f"Incorrect API key provided: {masked(call.presented)}. You can find your API key at the console."
            return error(call, 401, message, code="invalid_api_key")
        case Outcome.DEACTIVATED:
            return error(call, 401, "The account was deactivated.", code="account_deactivated")
        case Outcome.WRONG_REGION:
            message = "Attempted to access a regional project: make your request to eu.api.openai.com"
            return error(call, 401, message, code="incorrect_hostname")
        case Outcome.FIREWALL:
            return error(call, 401, "Your IP address is not authorized for this project.", code="ip_not_authorized")
        case Outcome.WRONG_PROJECT:
            return error(call, 401, "The project header does not match the key.", code="mismatched_project")
        case Outcome.RESTRICTED if not in_use:
            return _missing(call, "api.model.read")
        case Outcome.RESTRICTED_IN_USE if in_use:
            return _missing(call, "model.request")
        case Outcome.COUNTRY_BLOCKED:
            message = "Country, region, or territory not supported"
            return error(call, 403, message, kind="request_forbidden", code="unsupported_country_region_territory")
        case Outcome.NO_QUOTA if in_use:
            message = "You exceeded your current quota, please check your plan and billing details."
            return error(call, 429, message, kind="insufficient_quota", code="insufficient_quota")
        case Outcome.RATE_LIMITED:
            message = f"Rate limit reached for requests in organization org-{_organization(call)} on requests per min."
            headers = {"retry-after": "7", "retry-after-ms": "7000", **_limits(remaining=0)}
            return error(call, 429, message, kind="requests", code="rate_limit_exceeded", headers=headers)
        case Outcome.SLOW_DOWN:
            return error(call, 503, "Slow down, please.", kind="server_error", code="slow_down")
        case Outcome.DOWN:
            return error(call, 500, "The server had an error while processing your request.", kind="server_error")
        case Outcome.DOWN_IN_USE if in_use:
            return error(call, 503, "The engine is currently overloaded.", kind="server_error")
        case Outcome.UNKNOWN_401:
            return error(call, 401, "Something about this request is not right.", kind="auth_error", code="teapot")
        case Outcome.ECHOES:
            return error(
                call, 401, faults.echo_text(call), code=call.presented[:300], headers=faults.echo_headers(call)
            )
    return None


def masked(text: str) -> str:
    """How OpenAI repeats a wrong key: first eight, a star per hidden character, last four; short ones whole."""
    return text if len(text) <= 12 else f"{text[:8]}{'*' * (len(text) - 12)}{text[-4:]}"


PROVIDER = Provider(keys.OPENAI, presented, refuse, standing_headers)


def routes() -> list[tuple[str, str, Handler]]:
    """Method, path and handler of everything that OpenAI answers."""
    return [
        ("GET", f"{PREFIX}/models", endpoint(PROVIDER, CHECK, list_models)),
        ("GET", PREFIX + "/models/{model}", endpoint(PROVIDER, CHECK, one_model)),
        ("POST", f"{PREFIX}/chat/completions", endpoint(PROVIDER, USE, chat)),
        ("POST", f"{PREFIX}/responses", endpoint(PROVIDER, USE, responses)),
        ("POST", f"{PREFIX}/embeddings", endpoint(PROVIDER, USE, embeddings)),
        ("POST", f"{PREFIX}/audio/speech", endpoint(PROVIDER, USE, speech)),
        ("POST", f"{PREFIX}/audio/transcriptions", endpoint(PROVIDER, USE, transcribe)),
        ("POST", f"{PREFIX}/audio/translations", endpoint(PROVIDER, USE, transcribe)),
        ("*", PREFIX + "/{rest:.*}", endpoint(PROVIDER, CHECK, nowhere)),
    ]


async def list_models(call: Call) -> web.StreamResponse:
    return answer_json(
        call, {"object": "list", "data": [_model(name) for name in MODELS]}, headers=_account_headers(call)
    )


async def nowhere(call: Call) -> web.StreamResponse:
    return error(call, 404, f"Invalid URL ({call.request.method} {call.request.path[:200]})")


async def one_model(call: Call) -> web.StreamResponse:
    name = call.request.match_info["model"]
    if name not in MODELS:
        return _no_model(call, name)
    return answer_json(call, _model(name), headers=_account_headers(call))


async def chat(call: Call) -> web.StreamResponse:
    body = await read_object(call)
    if body is None:
        return _not_json(call)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        return error(
            call, 400, "Missing required parameter: 'messages'.", code="missing_required_parameter", param="messages"
        )
    refusal = _check_model(call, body)
    if refusal:
        return refusal
    choices_wanted = body.get("n") or 1
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS
    if not _is_count(choices_wanted, MOST_CHOICES):
        return error(call, 400, "Invalid 'n'.", code="invalid_value", param="n")
    if not _is_count(limit, 1_000_000):
        return error(call, 400, "Invalid 'max_tokens'.", code="invalid_value", param="max_tokens")
    prompt_tokens = tokens.of_messages(messages, body.get("tools"))
    choices = [_choice(body, messages, index, limit) for index in range(choices_wanted)]
    completion_tokens = sum(choice["tokens"] for choice in choices)
    call.entry.units = prompt_tokens + completion_tokens
    usage = _chat_usage(call, prompt_tokens, completion_tokens)
    shell = {"id": f"chatcmpl-{call.entry.request_id}", "created": int(time.time()), "model": body["model"],
             "service_tier": "default", "system_fingerprint": "fp_sandbox"}  # fmt: skip
    if body.get("stream"):
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        pieces = _chat_stream(body, shell, choices, usage, wants_usage=wants_usage)
        if call.outcome is Outcome.ERROR_MID_STREAM:
            pieces = _then_error(pieces)
        return await faults.send(
            call,
            pieces,
            content_type="text/event-stream; charset=utf-8",
            headers={**_account_headers(call), "Cache-Control": "no-cache"},
            pause_s=call.sandbox.chunk_delay_s,
        )
    answer = {
        **shell,
        "object": "chat.completion",
        "choices": [
            {
                "index": choice["index"],
                "message": _message(choice),
                "logprobs": _logprobs(body, choice["text"]),
                "finish_reason": choice["finish_reason"],
            }
            for choice in choices
        ],
    }
    if usage is not None:
        answer["usage"] = usage
    return await _send_json(call, answer)


async def responses(call: Call) -> web.StreamResponse:
    body = await read_object(call)
    if body is None:
        return _not_json(call)
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        return error(
            call, 400, "Missing required parameter: 'input'.", code="missing_required_parameter", param="input"
        )
    refusal = _check_model(call, body)
    if refusal:
        return refusal
    limit = body.get("max_output_tokens") or DEFAULT_MAX_TOKENS
    if not _is_count(limit, 1_000_000):
        return error(call, 400, "Invalid 'max_output_tokens'.", code="invalid_value", param="max_output_tokens")
    messages = given if isinstance(given, list) else [{"role": "user", "content": given}]
    text = answers.compose(_last_words(messages))
    cut = tokens.cut(text, limit)
    status = "completed" if cut == text else "incomplete"
    input_tokens = tokens.of_messages(messages) + tokens.of_content(body.get("instructions"))
    output_tokens = tokens.count(cut)
    call.entry.units = input_tokens + output_tokens
    shell: dict[str, Any] = {
        "id": f"resp_{call.entry.request_id}",
        "object": "response",
        "created_at": int(time.time()),
        "model": body["model"],
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "error": None,
        "incomplete_details": None if status == "completed" else {"reason": "max_output_tokens"},
    }
    item: dict[str, Any] = {
        "id": f"msg_{call.entry.request_id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [{"type": "output_text", "text": cut, "annotations": []}],
    }
    done = {**shell, "status": status, "output": [item], "usage": _responses_usage(call, input_tokens, output_tokens)}
    if not body.get("stream"):
        return await _send_json(call, done)
    opening = {**shell, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    pieces = _responses_stream(opening, item, cut, done)
    if call.outcome is Outcome.ERROR_MID_STREAM:
        pieces = _then_failed(pieces, done)
    return await faults.send(
        call,
        pieces,
        content_type="text/event-stream; charset=utf-8",
        headers=_account_headers(call),
        pause_s=call.sandbox.chunk_delay_s,
    )


async def embeddings(call: Call) -> web.StreamResponse:
    body = await read_object(call)
    if body is None:
        return _not_json(call)
    refusal = _check_model(call, body)
    if refusal:
        return refusal
    given = body.get("input")
    inputs: list[Any] = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    if inputs and all(isinstance(one, int) for one in inputs):
        inputs = [inputs]
    if not inputs or len(inputs) > 2_048:
        return error(call, 400, "Invalid 'input'.", code="invalid_value", param="input")
    size = body.get("dimensions") or _EMBEDDING_SIZES.get(body["model"], 0)
    if body["model"] not in _EMBEDDING_SIZES or not _is_count(size, 3_072):
        return error(call, 400, "This model does not make embeddings of that size.", param="model")
    data: list[dict[str, Any]] = []
    total = 0
    for index, one in enumerate(inputs):
        total += len(one) if isinstance(one, list) else tokens.count(str(one))
        vector = _vector(json.dumps(one), size)
        packed = struct.pack(f"<{size}f", *vector)
        wanted = base64.b64encode(packed).decode() if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": wanted})
    call.entry.units = total
    answer: dict[str, Any] = {"object": "list", "data": data, "model": body["model"]}
    if call.outcome is not Outcome.NO_USAGE:
        hostile = call.outcome is Outcome.HOSTILE_USAGE
        answer["usage"] = {"prompt_tokens": -5 if hostile else total, "total_tokens": 10**30 if hostile else total}
    return await _send_json(call, answer)


async def speech(call: Call) -> web.StreamResponse:
    body = await read_object(call)
    if body is None:
        return _not_json(call)
    refusal = _check_model(call, body)
    if refusal:
        return refusal
    text, voice = body.get("input"), body.get("voice")
    if body["model"] not in _SPEECH_MODELS:
        return error(call, 400, "This model does not speak.", param="model")
    if not isinstance(text, str) or not 0 < len(text) <= 4_096:
        return error(call, 400, "Invalid 'input': 1 to 4096 characters.", code="invalid_value", param="input")
    if voice not in _SPEECH_VOICES:
        return error(call, 400, "Invalid 'voice'.", code="invalid_value", param="voice")
    form = _SPEECH_FORMATS.get(str(body.get("response_format") or "mp3"))
    if form is None:
        return error(call, 400, "The sandbox speaks mp3, wav and pcm.", code="invalid_value", param="response_format")
    call.entry.units, call.entry.voice = len(text), str(voice)
    pieces = audio.speak(text, voice=_SPEECH_VOICES.index(str(voice)), form=form)
    if body.get("stream_format") == "sse":
        if body["model"] != "gpt-4o-mini-tts":
            return error(call, 400, "This model does not speak in events.", code="invalid_value", param="stream_format")
        return await faults.send(
            call,
            _speech_events(call, text, pieces),
            content_type="text/event-stream; charset=utf-8",
            headers=_account_headers(call),
            pause_s=call.sandbox.chunk_delay_s,
        )
    return await faults.send(call, pieces, content_type=form.content_type, headers=_account_headers(call))


def _speech_events(call: Call, text: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    count = 0
    for piece in pieces:
        count += 1
        yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
    usage = _audio_usage(call, {"input_tokens": tokens.count(text), "output_tokens": 20 * count,
                                "total_tokens": tokens.count(text) + 20 * count})  # fmt: skip
    yield _event({"type": "speech.audio.done", **({} if usage is None else {"usage": usage})})


async def transcribe(call: Call) -> web.StreamResponse:
    """A recording's transcript, the same for the same bytes; usage in seconds of audio."""
    try:
        form = await call.request.post()
    except (ValueError, AssertionError):
        return error(call, 400, "Could not parse multipart form.")
    call.entry.fields = sorted(set(form))
    body = {name: value for name, value in form.items() if isinstance(value, str)}
    recording = form.get("file")
    if not isinstance(recording, web.FileField):
        return error(call, 400, "Missing required parameter: 'file'.", code="missing_required_parameter", param="file")
    refusal = _check_model(call, body)
    if refusal:
        return refusal
    if body["model"] not in _LISTENING_MODELS:
        return error(call, 400, "This model does not listen.", param="model")
    sound = recording.file.read()
    if not sound or len(sound) > LARGEST_RECORDING:
        return error(call, 413 if sound else 400, "Invalid 'file': 1 byte to 25 MB.", param="file")
    call.entry.body_sha256 = hashlib.sha256(sound).hexdigest()
    seconds = call.entry.units = _seconds(sound)
    text = answers.compose(f"recording {call.entry.body_sha256[:6]} {body.get('language', '')}")
    usage = _audio_usage(call, {"type": "duration", "seconds": seconds})
    shown = {} if usage is None else {"usage": usage}
    wanted = body.get("response_format") or "json"
    if wanted in ("text", "srt", "vtt"):
        cue = f"00:00:00,000 --> 00:00:{min(seconds, 59):02d},000\n{text}\n"
        plain = {"text": f"{text}\n", "srt": f"1\n{cue}\n", "vtt": f"WEBVTT\n\n{cue.replace(',', '.', 2)}\n"}
        return await faults.send_whole(
            call, plain[wanted].encode(), content_type="text/plain; charset=utf-8", headers=_account_headers(call)
        )
    if wanted not in ("json", "verbose_json"):
        return error(call, 400, "Invalid 'response_format'.", code="invalid_value", param="response_format")
    if body.get("stream") == "true" and body["model"] != "whisper-1":
        events = [_event({"type": "transcript.text.delta", "delta": word}) for word in _words(text)]
        events.append(_event({"type": "transcript.text.done", "text": text, **shown}))
        return await faults.send(
            call,
            events,
            content_type="text/event-stream; charset=utf-8",
            headers=_account_headers(call),
            pause_s=call.sandbox.chunk_delay_s,
        )
    answer: dict[str, Any] = {"text": text, **shown}
    if wanted == "verbose_json":
        answer |= {"task": call.request.path.rpartition("/")[2][:-1], "language": "english", "duration": seconds}
        answer |= {"segments": [], "words": []}
        if call.outcome is Outcome.NO_USAGE:
            del answer["duration"]
    return await _send_json(call, answer)


def _seconds(sound: bytes) -> int:
    """A WAV knows its length; anything else is taken for 64 kbit/s."""
    if sound[:4] == b"RIFF" and len(sound) > 44:
        return -(-(len(sound) - 44) // max(1, int.from_bytes(sound[28:32], "little")))
    return max(1, len(sound) // 8_000)


def _audio_usage(call: Call, honest: dict[str, Any]) -> dict[str, Any] | None:
    if call.outcome is Outcome.NO_USAGE:
        return None
    if call.outcome is Outcome.HOSTILE_USAGE:
        return {"type": honest.get("type"), "seconds": -7, "input_tokens": -7, "output_tokens": 10**30}
    return honest


def _model(name: str) -> dict[str, Any]:
    made, ends = MODELS[name]
    return {"id": name, "object": "model", "created": made, "owned_by": "system", "shutdown_date": ends}


def _missing(call: Call, scope: str) -> web.Response:
    message = (
        f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have the "
        "correct role in your organization and project."
    )
    return error(call, 401, message)


def _not_json(call: Call) -> web.Response:
    return error(call, 400, "We could not parse the JSON body of your request.")


def _no_model(call: Call, name: str) -> web.Response:
    message = f"The model `{name[:100]}` does not exist or you do not have access to it."
    return error(call, 404, message, code="model_not_found")


def _check_model(call: Call, body: dict[str, Any]) -> web.Response | None:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        return error(call, 400, "you must provide a model parameter")
    call.entry.model = name[:100]
    return None if name in MODELS else _no_model(call, name)


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _organization(call: Call) -> str:
    return hashlib.sha256(b"organization|" + call.account.encode()).hexdigest()[:24]


def _limits(*, remaining: int) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-requests": str(remaining),
        "x-ratelimit-remaining-tokens": "1999000",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "30ms",
    }


def _account_headers(call: Call) -> dict[str, str]:
    return {"openai-organization": f"org-{_organization(call)}", **_limits(remaining=9_999)}


async def _send_json(call: Call, body: dict[str, Any]) -> web.StreamResponse:
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return await faults.send_whole(call, raw, content_type="application/json", headers=_account_headers(call))


def _last_words(messages: list[Any]) -> str:
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return tokens.text_of(message.get("content"))
    return ""


def _choice(body: dict[str, Any], messages: list[dict[str, Any]], index: int, limit: int) -> dict[str, Any]:
    """One answer: a tool call, a structured answer or sentences, cut at `limit` tokens."""
    tool = _tool_to_call(body, messages)
    if tool is not None:
        arguments = json.dumps(answers.example(tool.get("parameters")))
        return {"index": index, "text": "", "tool": tool["name"], "arguments": arguments,
                "tokens": tokens.count(str(tool["name"])) + tokens.count(arguments),
                "finish_reason": "tool_calls"}  # fmt: skip
    wanted = body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if messages[-1].get("role") == "tool":
        text = answers.after_tool(tokens.text_of(messages[-1].get("content")))
    elif kind == "json_schema" and isinstance(wanted, dict):
        inner = wanted.get("json_schema")
        text = json.dumps(answers.example(inner.get("schema") if isinstance(inner, dict) else None))
    elif kind == "json_object":
        text = json.dumps({"answer": answers.compose(_last_words(messages), variant=index)})
    else:
        text = answers.compose(_last_words(messages), variant=index)
    stops = body.get("stop")
    for stop in [stops] if isinstance(stops, str) else stops if isinstance(stops, list) else []:
        if isinstance(stop, str) and stop:
            text = text.partition(stop)[0]
    cut = tokens.cut(text, limit)
    return {
        "index": index,
        "text": cut,
        "tool": None,
        "arguments": "",
        "tokens": tokens.count(cut),
        "finish_reason": "stop" if cut == text else "length",
    }


def _tool_to_call(body: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The function to call: the one demanded, or one whose words the prompt shares; never twice in a row."""
    tools = body.get("tools")
    functions: list[dict[str, Any]] = [
        tool["function"]
        for tool in (tools if isinstance(tools, list) else [])
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict)
    ]
    functions = [function for function in functions if isinstance(function.get("name"), str)]
    choice = body.get("tool_choice", "auto")
    if not functions or choice == "none" or messages[-1].get("role") == "tool":
        return None
    if isinstance(choice, dict):
        wanted = choice.get("function", {})
        name = wanted.get("name") if isinstance(wanted, dict) else None
        return next((function for function in functions if function["name"] == name), None)
    if choice == "required":
        return functions[0]
    asked = set(answers.topic_of(_last_words(messages)).lower().split())
    for function in functions:
        words = f"{function['name']} {function.get('description', '')}".lower().replace("_", " ").split()
        if asked & {word.strip(".,:;") for word in words}:
            return function
    return None


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    if choice["tool"] is None:
        return {"role": "assistant", "content": choice["text"], "refusal": None, "annotations": []}
    return {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [_tool(choice)]}


def _tool(choice: dict[str, Any]) -> dict[str, Any]:
    name, arguments = choice["tool"], choice["arguments"]
    digest = hashlib.sha256(f"{choice['index']}|{name}|{arguments}".encode()).hexdigest()[:24]
    return {"id": f"call_{digest}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _chat_usage(call: Call, prompt: int, completion: int) -> dict[str, Any] | None:
    if call.outcome is Outcome.NO_USAGE:
        return None
    if call.outcome is Outcome.HOSTILE_USAGE:
        return {"prompt_tokens": -7, "completion_tokens": 10**30, "total_tokens": "many",
                "prompt_tokens_details": {"cached_tokens": 10**12}}  # fmt: skip
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _responses_usage(call: Call, given: int, made: int) -> dict[str, Any] | None:
    if call.outcome is Outcome.NO_USAGE:
        return None
    if call.outcome is Outcome.HOSTILE_USAGE:
        return {"input_tokens": -7, "output_tokens": 10**30, "total_tokens": "many"}
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }


def _event(body: dict[str, Any], name: str = "") -> bytes:
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode("utf-8", "surrogatepass")


def _words(text: str) -> Iterator[str]:
    """The text in the pieces a model would stream: a word, or a part of a long one."""
    start = 0
    for position in range(1, len(text) + 1):
        at_space = position < len(text) and text[position] == " "
        if at_space or position == len(text) or position - start >= 12:
            yield text[start:position]
            start = position


def _chat_stream(
    body: dict[str, Any],
    shell: dict[str, Any],
    choices: list[dict[str, Any]],
    usage: dict[str, Any] | None,
    *,
    wants_usage: bool,
) -> Iterator[bytes]:
    head: dict[str, Any] = {**shell, "object": "chat.completion.chunk"}
    nothing = {"usage": None} if wants_usage else {}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        logprobs = _logprobs(body, str(delta.get("content") or ""))
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return _event({**head, "choices": [choice], **nothing})

    for choice in choices:
        index = choice["index"]
        if choice["tool"] is not None:
            tool = _tool(choice)
            opening = {"index": 0, **tool, "function": {"name": tool["function"]["name"], "arguments": ""}}
            yield chunk(index, {"role": "assistant", "content": None, "tool_calls": [opening]})
            for word in _words(choice["arguments"]):
                yield chunk(index, {"tool_calls": [{"index": 0, "function": {"arguments": word}}]})
        else:
            yield chunk(index, {"role": "assistant", "content": "", "refusal": None})
            for word in _words(choice["text"]):
                yield chunk(index, {"content": word})
        yield chunk(index, {}, choice["finish_reason"])
    if wants_usage and usage is not None:
        yield _event({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _logprobs(body: dict[str, Any], text: str) -> dict[str, Any] | None:
    """The probability of every word, when asked for; always the same for the same word."""
    if body.get("logprobs") is not True or not text:
        return None

    def one(token: str, rank: int) -> dict[str, Any]:
        raw = token.encode()
        return {"token": token, "logprob": -(sum(raw) % 97 + rank * 100) / 100, "bytes": list(raw)}

    count = body.get("top_logprobs") or 0
    return {
        "content": [
            {**one(word, 0), "top_logprobs": [one(word, rank) for rank in range(min(count, 20))]}
            for word in _words(text)
        ],
        "refusal": None,
    }


def _then_failed(pieces: Iterator[bytes], done: dict[str, Any]) -> Iterator[bytes]:
    """The beginning of a streamed response, and then the provider's word that it failed."""
    yield from itertools.islice(pieces, 8)
    error = {"code": "server_error", "message": "The model failed to generate a response."}
    failed = {**done, "status": "failed", "output": [], "error": error, "usage": None}
    yield _event({"type": "response.failed", "sequence_number": 8, "response": failed}, "response.failed")


def _then_error(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield from itertools.islice(pieces, 6)
    message = "The server had an error while processing your request."
    yield _event({"error": {"message": message, "type": "server_error", "param": None, "code": None}})


def _responses_stream(
    opening: dict[str, Any], item: dict[str, Any], text: str, done: dict[str, Any]
) -> Iterator[bytes]:
    number = 0

    def event(name: str, **body: Any) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": name, "sequence_number": number - 1, **body}, name)

    place: dict[str, Any] = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield event("response.created", response=opening)
    yield event("response.in_progress", response=opening)
    yield event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []})
    yield event("response.content_part.added", **place, part={"type": "output_text", "text": "", "annotations": []})
    for word in _words(text):
        yield event("response.output_text.delta", **place, delta=word, logprobs=[])
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    yield event("response.content_part.done", **place, part=item["content"][0])
    yield event("response.output_item.done", output_index=0, item=item)
    yield event(f"response.{done['status']}", response=done)


def _vector(text: str, size: int) -> list[float]:
    """A unit vector that depends only on the text."""
    stream = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(size * 2)
    raw = [value / 32_768 for value in struct.unpack(f"<{size}h", stream)]
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [value / length for value in raw]

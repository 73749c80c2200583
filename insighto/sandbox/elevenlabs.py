"""ElevenLabs' protocol as far as the product uses it (provider-contracts §5)."""

import base64
import json
import re
import time
from typing import Any

from aiohttp import web

from insighto.sandbox import audio, faults, keys, mp3
from insighto.sandbox.call import CHECK, USE, Call, Handler, Provider, answer_json, endpoint, read_object
from insighto.sandbox.keys import Outcome

PREFIX = "/elevenlabs"
CHARACTER_LIMIT = 100_000
CHARACTER_S = 0.07

# id, credits per character, longest text
MODELS: dict[str, tuple[str, float, int]] = {
    "eleven_multilingual_v2": ("Eleven Multilingual v2", 1.0, 10_000),
    "eleven_flash_v2_5": ("Eleven Flash v2.5", 0.5, 40_000),
    "eleven_turbo_v2_5": ("Eleven Turbo v2.5", 0.5, 40_000),
    "eleven_v3": ("Eleven v3", 1.0, 5_000),
}
# id, name, gender, accent; the place in the list is the pitch.
VOICES: tuple[tuple[str, str, str, str], ...] = (
    ("SandboxVoiceFlint001", "Flint", "male", "british"),
    ("SandboxVoiceBirch002", "Birch", "male", "american"),
    ("SandboxVoiceEmber003", "Ember", "male", "irish"),
    ("SandboxVoiceDelta004", "Delta", "female", "american"),
    ("SandboxVoiceCoral005", "Coral", "female", "australian"),
    ("SandboxVoiceAmber006", "Amber", "female", "british"),
)
_PITCH = {voice[0]: number for number, voice in enumerate(VOICES)}
_FORMAT = re.compile(r"(mp3|pcm|wav|ulaw|alaw)_(\d{4,5})(?:_(\d{2,3}))?")
_PCM_RATES = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_MP3_FORMATS = ["22050_32", "24000_48", "44100_32", "44100_64", "44100_96", "44100_128", "44100_192"]


def presented(request: web.Request) -> str:
    return request.headers.get("xi-api-key", "").strip()


def standing_headers(request_id: str) -> dict[str, str]:
    return {
        "request-id": request_id[:20],
        "x-trace-id": request_id,
        "current-concurrent-requests": "1",
        "maximum-concurrent-requests": "10",
    }


def error(call: Call, status: int, name: str, message: str, *, headers: dict[str, str] | None = None) -> web.Response:
    """The older of the two envelopes."""
    return answer_json(call, {"detail": {"status": name, "message": message}}, status=status, headers=headers)


def new_error(
    call: Call, status: int, kind: str, code: str, message: str, *, headers: dict[str, str] | None = None
) -> web.Response:
    """The newer envelope."""
    detail = {
        "type": kind,
        "code": code,
        "message": message,
        "status": code,
        "request_id": call.headers["request-id"],
        "param": None,
    }
    return answer_json(call, {"detail": detail}, status=status, headers=headers)


def refuse(call: Call) -> web.Response | None:
    """The answer a key gets instead of what it asked for, or None."""
    in_use = call.operation == USE
    match call.outcome:
        case Outcome.INVALID if not call.presented:
            return error(call, 401, "needs_authorization", "Neither authorization header nor xi-api-key received.")
        case Outcome.INVALID:
            return error(call, 401, "invalid_api_key", "Invalid API key")
        case Outcome.RESTRICTED if not in_use:
            return _missing(call, _permission(call))
        case Outcome.RESTRICTED_PARTLY if _permission(call) == "user_read":
            return _missing(call, "user_read")
        case Outcome.RESTRICTED_IN_USE if in_use:
            return _missing(call, "text_to_speech")
        case Outcome.PLAN_TOO_LOW if in_use:
            message = "Free users cannot use library voices via the API. Please upgrade your subscription."
            return new_error(call, 402, "payment_required", "paid_plan_required", message)
        case Outcome.UNUSUAL_ACTIVITY:
            message = "Unusual activity detected. Free Tier usage disabled."
            return error(call, 401, "detected_unusual_activity", message)
        case Outcome.FREE_DISABLED if in_use:
            return error(call, 401, "detected_unusual_activity", "Free Tier usage disabled.")
        case Outcome.NO_QUOTA | Outcome.NO_QUOTA_IN_USE if in_use:
            message = "This request exceeds your quota. You have 0 credits remaining."
            return new_error(call, 401, "invalid_request", "quota_exceeded", message)
        case Outcome.RATE_LIMITED:
            message = "Too many concurrent requests. Your current subscription allows a maximum of 10."
            return error(call, 429, "too_many_concurrent_requests", message, headers={"retry-after": "7"})
        case Outcome.SLOW_DOWN:
            return new_error(call, 429, "rate_limit_error", "system_busy", "We are experiencing heavy traffic.")
        case Outcome.DOWN:
            return error(call, 500, "internal_server_error", "An internal error occurred.")
        case Outcome.DOWN_IN_USE if in_use:
            return error(call, 503, "service_unavailable", "Try again later.")
        case Outcome.UNKNOWN_401:
            return error(call, 401, "teapot", "Something about this request is not right.")
        case Outcome.ECHOES:
            return error(call, 401, call.presented[:300], faults.echo_text(call), headers=faults.echo_headers(call))
    return None


PROVIDER = Provider(keys.ELEVENLABS, presented, refuse, standing_headers)


def routes() -> list[tuple[str, str, Handler]]:
    """Method, path and handler of everything that ElevenLabs answers."""
    return [
        ("GET", f"{PREFIX}/v1/user/subscription", endpoint(PROVIDER, CHECK, subscription)),
        ("GET", f"{PREFIX}/v1/models", endpoint(PROVIDER, CHECK, models)),
        ("GET", f"{PREFIX}/v1/voices", endpoint(PROVIDER, CHECK, voices)),
        ("GET", f"{PREFIX}/v2/voices", endpoint(PROVIDER, CHECK, voices)),
        ("POST", PREFIX + "/v1/text-to-speech/{voice_id}", endpoint(PROVIDER, USE, speak)),
        ("POST", PREFIX + "/v1/text-to-speech/{voice_id}/stream", endpoint(PROVIDER, USE, stream)),
        ("POST", PREFIX + "/v1/text-to-speech/{voice_id}/with-timestamps", endpoint(PROVIDER, USE, speak_timed)),
        (
            "POST",
            PREFIX + "/v1/text-to-speech/{voice_id}/stream/with-timestamps",
            endpoint(PROVIDER, USE, stream_timed),
        ),
        ("*", PREFIX + "/{rest:.*}", endpoint(PROVIDER, CHECK, nowhere)),
    ]


async def subscription(call: Call) -> web.StreamResponse:
    used = CHARACTER_LIMIT if call.outcome is Outcome.NO_QUOTA else 1_234
    free = call.outcome is Outcome.FREE_DISABLED
    return answer_json(
        call,
        {
            "tier": "free" if free else "creator",
            "character_count": used,
            "character_limit": CHARACTER_LIMIT,
            "max_character_limit_extension": 0,
            "can_extend_character_limit": False,
            "allowed_to_extend_character_limit": False,
            "next_character_count_reset_unix": int(time.time()) // 86_400 * 86_400 + 12 * 86_400,
            "voice_slots_used": len(VOICES),
            "professional_voice_slots_used": 0,
            "voice_limit": 30,
            "max_voice_add_edits": 95,
            "voice_add_edit_counter": 0,
            "professional_voice_limit": 1,
            "can_extend_voice_limit": False,
            "can_use_instant_voice_cloning": not free,
            "can_use_professional_voice_cloning": False,
            "currency": "usd",
            "status": "free_disabled" if free else "active",
            "billing_period": "monthly_period",
            "character_refresh_period": "monthly_period",
            "next_invoice": None,
            "open_invoices": [],
            "has_open_invoices": False,
        },
    )


async def models(call: Call) -> web.StreamResponse:
    listed = [
        {
            "model_id": model,
            "name": name,
            "can_be_finetuned": False,
            "can_do_text_to_speech": True,
            "can_do_voice_conversion": False,
            "can_use_style": True,
            "can_use_speaker_boost": True,
            "serves_pro_voices": False,
            "token_cost_factor": 1.0,
            "description": "A model of the sandbox.",
            "requires_alpha_access": False,
            "max_characters_request_free_user": min(2_500, longest),
            "max_characters_request_subscribed_user": longest,
            "maximum_text_length_per_request": longest,
            "languages": [{"language_id": "en", "name": "English"}, {"language_id": "de", "name": "German"}],
            "model_rates": {"character_cost_multiplier": rate},
            "concurrency_group": "standard",
        }
        for model, (name, rate, longest) in MODELS.items()
    ]
    return answer_json(call, listed)


async def voices(call: Call) -> web.StreamResponse:
    listed: list[dict[str, Any]] = [
        {
            "voice_id": voice_id,
            "name": name,
            "category": "premade",
            "labels": {"gender": gender, "accent": accent, "use_case": "conversational"},
            "description": f"The sandbox's {name}.",
            "preview_url": None,
            "available_for_tiers": [],
            "settings": None,
            "high_quality_base_model_ids": list(MODELS),
            "fine_tuning": None,
            "samples": None,
            "is_owner": False,
        }
        for voice_id, name, gender, accent in VOICES
    ]
    if call.request.path.endswith("/v2/voices"):
        return answer_json(
            call, {"voices": listed, "has_more": False, "total_count": len(listed), "next_page_token": None}
        )
    return answer_json(call, {"voices": listed})


async def nowhere(call: Call) -> web.StreamResponse:
    return answer_json(call, {"detail": "Not Found"}, status=404)


async def speak(call: Call) -> web.StreamResponse:
    return await _speech(call, streamed=False)


async def stream(call: Call) -> web.StreamResponse:
    return await _speech(call, streamed=True)


async def speak_timed(call: Call) -> web.StreamResponse:
    return await _speech(call, streamed=False, timed=True)


async def stream_timed(call: Call) -> web.StreamResponse:
    return await _speech(call, streamed=True, timed=True)


def form_of(name: str) -> audio.Form | None:
    """The sound an `output_format` asks for; None when the sandbox cannot make it."""
    found = _FORMAT.fullmatch(name)
    if not found:
        return None
    container, rate, kbps = found[1], int(found[2]), int(found[3] or 0)
    if container == "mp3":
        fits = f"{rate}_{kbps}" in _MP3_FORMATS and mp3.supports(rate, kbps)
    elif container in ("ulaw", "alaw"):
        fits = rate == 8_000 and not kbps
    else:
        fits = rate in _PCM_RATES and not kbps
    return audio.Form(container, rate, kbps) if fits else None


async def _speech(call: Call, *, streamed: bool, timed: bool = False) -> web.StreamResponse:
    voice_id = call.request.match_info["voice_id"]
    body = await read_object(call)
    if body is None:
        return _unprocessable(call, "body", "JSON decode error")
    text, model = body.get("text"), body.get("model_id") or "eleven_multilingual_v2"
    if not isinstance(text, str):
        return _unprocessable(call, "text", "Field required")
    form = form_of(call.request.query.get("output_format", "mp3_44100_128"))
    if form is None:
        return _unprocessable(call, "output_format", "The sandbox cannot make this format")
    if voice_id not in _PITCH:
        return error(call, 404, "voice_not_found", f"A voice with the voice_id {voice_id[:40]} was not found.")
    if not isinstance(model, str) or model not in MODELS:
        return error(call, 400, "model_not_found", "A model with this model_id does not exist.")
    _, rate, longest = MODELS[model]
    if len(text) > longest:
        return error(call, 400, "max_character_limit_exceeded", f"This request is longer than {longest} characters.")
    if not text.strip():
        return error(call, 400, "empty_text", "The text is empty.")
    call.entry.model, call.entry.voice, call.entry.units = model, voice_id, len(text)
    headers = {"history-item-id": call.entry.request_id[12:]}
    if call.outcome is Outcome.HOSTILE_USAGE:
        headers["character-cost"] = "-999999999999999999999"
    elif call.outcome is not Outcome.NO_USAGE:
        headers["character-cost"] = str(-int(-len(text) * rate // 1))
    pieces = audio.speak(text, voice=_PITCH[voice_id], form=form)
    if timed:
        return await _send_timed(call, text, list(pieces), headers, streamed=streamed)
    if streamed:
        return await faults.send(
            call, pieces, content_type=form.content_type, headers=headers, pause_s=call.sandbox.chunk_delay_s
        )
    return await faults.send(call, pieces, content_type=form.content_type, headers=headers)


async def _send_timed(
    call: Call, text: str, pieces: list[bytes], headers: dict[str, str], *, streamed: bool
) -> web.StreamResponse:
    """Sound as base64 with the time of every character: one object, or one in each line for every few characters."""
    if not streamed:
        body = json.dumps(_timed(b"".join(pieces), text, 0.0)).encode()
        return await faults.send_whole(call, body, content_type="application/json", headers=headers)
    count = max(1, min(len(pieces), len(text)))
    lines = []
    for number in range(count):
        start, end = (len(text) * place // count for place in (number, number + 1))
        sound = b"".join(pieces[len(pieces) * number // count : len(pieces) * (number + 1) // count])
        lines.append(json.dumps(_timed(sound, text[start:end], start * CHARACTER_S)).encode() + b"\n")
    return await faults.send(
        call, lines, content_type="application/json", headers=headers, pause_s=call.sandbox.chunk_delay_s
    )


def _timed(sound: bytes, text: str, start_s: float) -> dict[str, Any]:
    alignment = {
        "characters": list(text),
        "character_start_times_seconds": [round(start_s + place * CHARACTER_S, 3) for place in range(len(text))],
        "character_end_times_seconds": [round(start_s + (place + 1) * CHARACTER_S, 3) for place in range(len(text))],
    }
    return {
        "audio_base64": base64.b64encode(sound).decode(),
        "alignment": alignment,
        "normalized_alignment": alignment,
    }


def _permission(call: Call) -> str:
    path = call.request.path
    if path.endswith("/subscription"):
        return "user_read"
    if path.endswith("/models"):
        return "models_read"
    return "voices_read" if path.endswith("/voices") else "text_to_speech"


def _missing(call: Call, permission: str) -> web.Response:
    message = f"The API key you used is missing the permission {permission} to execute this operation."
    return error(call, 401, "missing_permissions", message)


def _unprocessable(call: Call, field: str, message: str) -> web.Response:
    detail = [{"loc": ["body", field], "msg": message, "type": "value_error"}]
    return web.Response(
        body=json.dumps({"detail": detail}).encode(), status=422, content_type="application/json", headers=call.headers
    )

"""Azure Speech's protocol as far as the product uses it (provider-contracts §4), except the WebSocket.

Under `/azure/{region}` the path decides the region, as the host does at Azure. At the root, where the native SDK calls
when it is given `host=`, the key's own region counts.
"""

import base64
import json
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from aiohttp import web

from insighto.sandbox import audio, faults, keys, mp3
from insighto.sandbox.call import CHECK, USE, Call, Handler, Provider, answer_json, endpoint, read_body
from insighto.sandbox.keys import Outcome

PREFIX = "/azure/{region}"
LONGEST_SSML_BYTES = 65_536
TOKEN_LIFE_S = 600

# locale, name, gender, pitch
VOICES: tuple[tuple[str, str, str, int], ...] = (
    ("en-US", "Ava", "Female", 4),
    ("en-US", "AvaMultilingual", "Female", 4),
    ("en-US", "Andrew", "Male", 1),
    ("en-US", "Emma", "Female", 5),
    ("en-US", "Brian", "Male", 0),
    ("en-GB", "Sonia", "Female", 3),
    ("en-GB", "Ryan", "Male", 2),
    ("de-DE", "Katja", "Female", 4),
    ("de-DE", "Conrad", "Male", 0),
    ("fr-FR", "Denise", "Female", 5),
    ("fr-FR", "Henri", "Male", 1),
    ("es-ES", "Elvira", "Female", 3),
    ("it-IT", "Elsa", "Female", 4),
    ("ja-JP", "Nanami", "Female", 5),
    ("zh-CN", "Xiaoxiao", "Female", 4),
)
PITCH = {f"{locale}-{name}Neural": pitch for locale, name, _, pitch in VOICES}
_CANONICAL = {name.lower(): name for name in PITCH}  # the SDK's own default voices come in lower case
_MP3_FORMAT = re.compile(r"audio-(16|24|48)khz-(\d{2,3})kbitrate-mono-mp3")
_PCM_FORMAT = re.compile(r"(riff|raw)-(8|16|22050hz|24|44100hz|48)(?:khz)?-16bit-mono-pcm")
_CODE_FORMAT = re.compile(r"raw-8khz-8bit-mono-(mulaw|alaw)")
_RATES = {"8": 8_000, "16": 16_000, "22050hz": 22_050, "24": 24_000, "44100hz": 44_100, "48": 48_000}
# The outcomes of a genuine key; at another region's host they are all just "wrong key or wrong region".
_REGIONAL = frozenset({
    Outcome.VALID, Outcome.WRONG_REGION, Outcome.RESTRICTED, Outcome.RESTRICTED_IN_USE, Outcome.FIREWALL,
    Outcome.NO_QUOTA, Outcome.NO_QUOTA_IN_USE,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spoken:
    """What an SSML document asks for."""

    voice: str
    text: str


def presented(request: web.Request) -> str:
    """The key, from its header or from a token we issued for it."""
    direct = request.headers.get("Ocp-Apim-Subscription-Key", "").strip()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if direct or scheme.lower() != "bearer":
        return direct
    return _key_in(token.strip())


def standing_headers(request_id: str) -> dict[str, str]:
    return {"apim-request-id": request_id, "X-RequestId": request_id}


def error(call: Call, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> web.Response:
    return answer_json(call, {"error": {"code": code, "message": message}}, status=status, headers=headers)


def refuse(call: Call) -> web.Response | None:
    """The answer a key gets instead of what it asked for, or None."""
    in_use = call.operation == USE
    region = call.request.match_info.get("region", "")
    call.entry.region = region[:40]
    if region and region not in keys.REGIONS:
        return web.Response(status=404)
    if call.outcome in _REGIONAL and not _at_home(call, region):
        return _denied(call)
    match call.outcome:
        case Outcome.INVALID:
            return _denied(call)
        case Outcome.FIREWALL:
            return error(call, 403, "403", "Access denied due to Virtual Network/Firewall rules.")
        case Outcome.RESTRICTED:
            message = "Key based authentication is disabled for this resource."
            return error(call, 403, "AuthenticationTypeDisabled", message)
        case Outcome.RESTRICTED_IN_USE if in_use:
            return error(call, 403, "Forbidden", "The principal lacks the required data action.")
        case Outcome.NO_QUOTA:
            return _out_of_quota(call)
        case Outcome.NO_QUOTA_IN_USE if in_use:
            return _out_of_quota(call)
        case Outcome.RATE_LIMITED:
            message = "Requests to the Speech service have exceeded the rate limit of your current pricing tier."
            return error(call, 429, "429", message, headers={"Retry-After": "7"})
        case Outcome.DOWN:
            return web.Response(status=500, text="Internal Server Error", headers=call.headers)
        case Outcome.DOWN_IN_USE if in_use:
            return web.Response(status=503, text="Service Unavailable", headers=call.headers)
        case Outcome.UNKNOWN_401:
            return web.Response(status=401, text="Something about this request is not right.", headers=call.headers)
        case Outcome.ECHOES:
            return error(call, 401, call.presented[:300], faults.echo_text(call), headers=faults.echo_headers(call))
    return None


PROVIDER = Provider(keys.AZURE, presented, refuse, standing_headers)


def routes() -> list[tuple[str, str, Handler]]:
    """Method, path and handler of everything Azure answers over plain HTTP, by region and at the root."""
    found: list[tuple[str, str, Handler]] = []
    for prefix in (PREFIX, ""):
        found += [
            ("GET", prefix + "/cognitiveservices/voices/list", endpoint(PROVIDER, CHECK, voices)),
            ("POST", prefix + "/cognitiveservices/v1", endpoint(PROVIDER, USE, synthesize)),
            ("POST", prefix + "/sts/v1.0/issueToken", endpoint(PROVIDER, CHECK, issue_token)),
        ]
    return found


async def voices(call: Call) -> web.StreamResponse:
    # The native SDK cannot read an answer with `Connection: close`; aiohttp keeps the connection.
    return answer_json(
        call,
        [
            {
                "Name": f"Microsoft Server Speech Text to Speech Voice ({locale}, {name}Neural)",
                "DisplayName": name,
                "LocalName": name,
                "ShortName": f"{locale}-{name}Neural",
                "Gender": gender,
                "Locale": locale,
                "LocaleName": locale,
                "SampleRateHertz": "24000",
                "VoiceType": "Neural",
                "Status": "GA",
                "WordsPerMinute": "150",
            }
            for locale, name, gender, _ in VOICES
        ],
    )


async def issue_token(call: Call) -> web.StreamResponse:
    """A token in the shape of a JWT. It only says which key it stands for: the sandbox guards nothing."""
    claims = {"region": _region(call), "exp": int(time.time()) + TOKEN_LIFE_S, "key": call.presented}
    parts = [json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps(claims), "sandbox"]
    token = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    return web.Response(text=token, content_type="application/jwt", headers=call.headers)


async def synthesize(call: Call) -> web.StreamResponse:
    body = await read_body(call)
    form = form_of(call.request.headers.get("X-Microsoft-OutputFormat", ""))
    if form is None or not call.request.headers.get("User-Agent"):
        return web.Response(status=400, reason="Bad Request", headers=call.headers)
    if call.request.content_type != "application/ssml+xml":
        return web.Response(status=415, headers=call.headers)
    spoken = read_ssml(body)
    if spoken is None:
        return web.Response(status=400, text="The SSML is not valid.", headers=call.headers)
    call.entry.voice, call.entry.units = spoken.voice, billable_characters(spoken.text)
    pieces = audio.speak(spoken.text, voice=PITCH[spoken.voice], form=form)
    return await faults.send(call, pieces, content_type=form.content_type, pause_s=call.sandbox.chunk_delay_s)


def form_of(name: str) -> audio.Form | None:
    """The sound an output format asks for; None when the sandbox cannot make it."""
    if found := _MP3_FORMAT.fullmatch(name):
        rate, kbps = int(found[1]) * 1_000, int(found[2])
        return audio.Form("mp3", rate, kbps) if mp3.supports(rate, kbps) else None
    if found := _PCM_FORMAT.fullmatch(name):
        return audio.Form("wav" if found[1] == "riff" else "pcm", _RATES[found[2]])
    if found := _CODE_FORMAT.fullmatch(name):
        return audio.Form("ulaw" if found[1] == "mulaw" else "alaw", 8_000)
    return None


def read_ssml(body: bytes) -> Spoken | None:
    """The first voice and all the text; None when Azure would refuse the document."""
    if len(body) > LONGEST_SSML_BYTES or b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        return None
    try:
        root = ET.fromstring(body)  # noqa: S314 - no DTD, so no entities
    except (ET.ParseError, ValueError):
        return None
    if root.tag.rpartition("}")[2] != "speak":
        return None
    elements = [element for element in root.iter() if element.tag.rpartition("}")[2] == "voice"]
    name = _CANONICAL.get(elements[0].get("name", "").lower(), "") if elements else ""
    text = "".join(root.itertext())
    return Spoken(name, text) if name and text.strip() else None


def billable_characters(text: str) -> int:
    """Chinese characters, kanji and hanja count twice."""
    return sum(2 if "\u2e80" <= character <= "\u9fff" and not "\u3040" <= character <= "\u30ff" else 1
               for character in text)  # fmt: skip


def _region(call: Call) -> str:
    return call.request.match_info.get("region") or (call.known.region if call.known else keys.DEFAULT_REGION)


def _at_home(call: Call, region: str) -> bool:
    if call.known is None:  # A foreign text that was given an outcome at run time.
        return True
    if not region:
        return call.outcome is not Outcome.WRONG_REGION
    return call.known.region == region


def _denied(call: Call) -> web.Response:
    message = (
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
        "active subscription and use a correct regional API endpoint for your resource."
    )
    return error(call, 401, "401", message)


def _out_of_quota(call: Call) -> web.Response:
    return error(call, 403, "403", "Out of call volume quota. Quota will be replenished in 11.12:33:07.")


def _key_in(token: str) -> str:
    try:
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return str(claims["key"]) if claims["exp"] > time.time() else ""
    except (ValueError, IndexError, KeyError, TypeError):
        return ""

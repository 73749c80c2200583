"""The endpoints of the HTTP API: parse, one leg, answer. Rules live in `legs`, `upstreams` and below."""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import msgspec

from accounts.services import api_keys
from billing import routing
from gateway import catalogue, errors, explaining, free_reads, incoming, receipts, uploads
from gateway.errors import Refused
from gateway.incoming import Call, ClientGone, RawHeaders
from gateway.legs import Leg
from gateway.runtime import Runtime
from gateway.store import Admission, Ask
from gateway.upstreams import azure_speech, elevenlabs, openai_audio
from gateway.upstreams.base import EVENTS, WHOLE, Operation, Question
from gateway.upstreams.openai import ChatCompletion
from gateway.upstreams.openai_embeddings import Embedding
from gateway.upstreams.openai_responses import Response

MAX_CHAT_BYTES: Final = 10 * 1024 * 1024
MAX_SPEECH_BYTES: Final = 512 * 1024
MAX_QUESTION_BYTES: Final = 16 * 1024
SMALL_BYTES: Final = 64 * 1024
_JSON: Final = (b"content-type", b"application/json")
_NO_STORE: Final = (b"cache-control", b"no-store")

Handler = Callable[[Call, Runtime], Awaitable[None]]


def route(method: str, path: str) -> tuple[str, Handler]:
    """(whose error shape, handler) for a path. Unknown ones are refused in the shape of their neighbours."""
    exact = _EXACT.get(path)
    if exact is not None:
        shape, allowed, handler = exact
    elif path.startswith("/v1/text-to-speech/"):
        shape, allowed, handler = errors.ELEVENLABS, "POST", elevenlabs_speech
    elif path.startswith("/v1/models/"):
        shape, allowed, handler = errors.OPENAI, "GET", model
    elif path.startswith("/v1/requests/"):
        shape, allowed, handler = errors.OPENAI, "GET", receipt
    else:
        return _NEIGHBOURS.get(path.split("/")[1], errors.AZURE), _nothing
    return shape, handler if method == allowed else _wrong_method


async def chat_completions(call: Call, runtime: Runtime) -> None:
    digest, raw = await _authenticated_body(call, runtime, MAX_CHAT_BYTES)
    await _serve(call, runtime, digest, ChatCompletion(raw))


async def responses(call: Call, runtime: Runtime) -> None:
    digest, raw = await _authenticated_body(call, runtime, MAX_CHAT_BYTES)
    await _serve(call, runtime, digest, Response(raw))


async def embeddings(call: Call, runtime: Runtime) -> None:
    digest, raw = await _authenticated_body(call, runtime, MAX_CHAT_BYTES)
    await _serve(call, runtime, digest, Embedding(raw))


async def openai_speech(call: Call, runtime: Runtime) -> None:
    digest, raw = await _authenticated_body(call, runtime, MAX_SPEECH_BYTES)
    await _serve(call, runtime, digest, openai_audio.Speech(raw))


async def transcriptions(call: Call, runtime: Runtime) -> None:
    """Also translations. Strangers upload nothing."""
    digest = _digest(call)
    await _admitted(runtime, Ask(digest=digest))
    upload = await uploads.receive(call)
    try:
        action = call.path.removeprefix("/v1/audio/")
        await _serve(call, runtime, digest, openai_audio.Transcription(upload, action))
    finally:
        upload.close()


async def elevenlabs_speech(call: Call, runtime: Runtime) -> None:
    voice, _, rest = call.path.removeprefix("/v1/text-to-speech/").partition("/")
    if rest not in ("", "stream", "with-timestamps", "stream/with-timestamps"):
        raise Refused("not_found")
    digest, raw = await _authenticated_body(call, runtime, MAX_SPEECH_BYTES)
    query = call.scope["query_string"].decode("latin-1")
    streamed, timed = rest.startswith("stream"), rest.endswith("with-timestamps")
    await _serve(call, runtime, digest, elevenlabs.Speech(voice, raw, query, streamed=streamed, timed=timed))


async def elevenlabs_voices(call: Call, runtime: Runtime) -> None:
    question = elevenlabs.voices(call.path, call.scope["query_string"].decode("latin-1"))
    await _read_freely(call, runtime, question, on_credits=elevenlabs.public_voices)


async def elevenlabs_subscription(call: Call, runtime: Runtime) -> None:
    """Of the key that serves. The platform's own is nobody's business: on credits they are what counts."""
    admission = await _caller(call, runtime, "elevenlabs", elevenlabs.DEFAULT_MODEL)
    facts, decision = admission.facts, free_reads.decided(admission.facts)
    assert facts is not None
    if decision.funding_source == routing.PLATFORM_CREDITS:
        answer = elevenlabs.credits_subscription(facts.balance_micros, admission.price)
        body, headers = msgspec.json.encode(answer), [_JSON]
    else:
        found = await free_reads.ask(runtime, facts, decision, elevenlabs.subscription())
        body, headers = found.body, found.headers
    await call.answer(200, [*headers, _NO_STORE, *receipts.headers(call.id, decision, 0)], body)


async def azure_voices(call: Call, runtime: Runtime) -> None:
    await _read_freely(call, runtime, azure_speech.voices())


async def azure_token(call: Call, runtime: Runtime) -> None:
    """A provider's token of the account's own key. The platform's is never handed out."""
    admission = await _caller(call, runtime, "azure_speech")
    decision = free_reads.decided(admission.facts)
    if decision.funding_source == routing.PLATFORM_CREDITS:
        raise Refused("token_on_credits")
    assert admission.facts is not None
    found = await free_reads.ask(runtime, admission.facts, decision, azure_speech.token())
    await call.answer(200, [*found.headers, _NO_STORE, *receipts.headers(call.id, decision, 0)], found.body)


async def azure_synthesis(call: Call, runtime: Runtime) -> None:
    digest, raw = await _authenticated_body(call, runtime, azure_speech.MAX_SSML_BYTES)
    if call.header(b"content-type").partition(";")[0].strip().lower() != "application/ssml+xml":
        raise Refused("unsupported_media_type")
    output_format = call.header(b"x-microsoft-outputformat")
    await _serve(call, runtime, digest, azure_speech.Speech(raw, output_format))


async def models(call: Call, runtime: Runtime) -> None:
    """Whose header carried the key decides whose shape answers."""
    admission = await _caller(call, runtime)
    shape = incoming.token(call.scope)[1]
    listed = await runtime.store.read(lambda: catalogue.models(admission.account_id, shape))
    await _answer_json(call, listed)


async def model(call: Call, runtime: Runtime) -> None:
    """One model of those that `/v1/models` lists; what it does not list is not there."""
    admission = await _caller(call, runtime)
    name = call.path.removeprefix("/v1/models/")
    found = await runtime.store.read(lambda: catalogue.model(admission.account_id, name))
    if found is None:
        shown = name[:80] if name.isprintable() else ""
        message = f"The model '{shown}' does not exist or you do not have access to it."
        raise Refused("model_not_found", message, param="model")
    await _answer_json(call, found)


async def receipt(call: Call, runtime: Runtime) -> None:
    admission = await _caller(call, runtime)
    try:
        request_id = UUID(call.path.removeprefix("/v1/requests/"))
    except ValueError:
        raise Refused("not_found", "There is no such request.") from None
    found = await runtime.store.read(lambda: catalogue.receipt(request_id, admission.account_id))
    if found is None:
        raise Refused("not_found", "There is no such request.")
    await _answer_json(call, found)


async def explain(call: Call, runtime: Runtime) -> None:
    digest, raw = await _authenticated_body(call, runtime, MAX_QUESTION_BYTES)
    question = explaining.read_question(raw)
    admission = await _admitted(runtime, Ask(digest=digest))
    await _answer_json(call, await runtime.store.read(lambda: explaining.answer(admission.account_id, question)))


async def _nothing(call: Call, runtime: Runtime) -> None:
    raise Refused("not_found")


async def _wrong_method(call: Call, runtime: Runtime) -> None:
    raise Refused("method_not_allowed")


_EXACT: Final[dict[str, tuple[str, str, Handler]]] = {
    "/v1/chat/completions": (errors.OPENAI, "POST", chat_completions),
    "/v1/responses": (errors.OPENAI, "POST", responses),
    "/v1/embeddings": (errors.OPENAI, "POST", embeddings),
    "/v1/audio/speech": (errors.OPENAI, "POST", openai_speech),
    "/v1/audio/transcriptions": (errors.OPENAI, "POST", transcriptions),
    "/v1/audio/translations": (errors.OPENAI, "POST", transcriptions),
    "/v1/models": (errors.OPENAI, "GET", models),
    "/v1/funding/explain": (errors.OPENAI, "POST", explain),
    "/v1/voices": (errors.ELEVENLABS, "GET", elevenlabs_voices),
    "/v2/voices": (errors.ELEVENLABS, "GET", elevenlabs_voices),
    "/v1/user/subscription": (errors.ELEVENLABS, "GET", elevenlabs_subscription),
    "/cognitiveservices/v1": (errors.AZURE, "POST", azure_synthesis),
    "/cognitiveservices/voices/list": (errors.AZURE, "GET", azure_voices),
    "/sts/v1.0/issueToken": (errors.AZURE, "POST", azure_token),
}


_NEIGHBOURS: Final = {"v1": errors.OPENAI, "v2": errors.ELEVENLABS}


# Who is asking.


def _digest(call: Call) -> bytes:
    """The digest of a well-formed API key; nothing is looked up for any other text."""
    found = api_keys.digest(incoming.token(call.scope)[0])
    if found is None:
        raise Refused("invalid_api_key")
    return found


async def _authenticated_body(call: Call, runtime: Runtime, limit: int) -> tuple[bytes, bytes]:
    """The API key's digest and the body. Strangers may send a small body only; it is thrown away with the refusal.

    A small body is read first, so that one batched query then answers for the key, the standing and the price.
    """
    digest = _digest(call)
    declared = call.header(b"content-length")
    if not (declared.isascii() and declared.isdigit() and len(declared) < 8 and int(declared) <= SMALL_BYTES):
        await _admitted(runtime, Ask(digest=digest))
    return digest, await call.read_body(limit)


async def _admitted(runtime: Runtime, ask: Ask) -> Admission:
    admission = await runtime.store.admit(ask)
    if admission is None:
        raise Refused("invalid_api_key")
    return admission


async def _caller(call: Call, runtime: Runtime, provider: str = "", price_model: str = "") -> Admission:
    return await _admitted(runtime, Ask(provider, price_model, _digest(call)))


# What is free at the provider, answered.


async def _read_freely(
    call: Call, runtime: Runtime, question: Question, *, on_credits: Callable[[bytes], bytes] | None = None
) -> None:
    """The answer of the credential that would serve; `on_credits` leaves out what is the platform's own."""
    admission = await _caller(call, runtime, question.provider)
    decision = free_reads.decided(admission.facts)
    assert admission.facts is not None
    found = await free_reads.ask(runtime, admission.facts, decision, question)
    body = found.body
    if on_credits is not None and decision.funding_source == routing.PLATFORM_CREDITS:
        body = on_credits(body)
    await call.answer(200, [*found.headers, *receipts.headers(call.id, decision, 0)], body)


# One leg, answered.


async def _serve(call: Call, runtime: Runtime, digest: bytes, operation: Operation) -> None:
    ask = Ask(operation.provider, operation.price_model, digest)
    admission = await _admitted(runtime, ask)
    leg = Leg(runtime, call.id, operation)
    try:
        await leg.open(admission)
        async with call:
            headers = await leg.send()
            if operation.delivery == WHOLE:
                body = await leg.whole()
            else:
                await _relay(call, leg, headers)
                return
        await leg.finish()
        await call.answer(200, [*headers, *leg.receipt_headers()], body)
    except ClientGone:
        await leg.leave()
        raise
    except Refused as problem:
        await leg.fail(problem)
        if call.started:
            await _break_off(call, operation, problem)
        else:
            await answer_error(call, problem, leg.receipt_headers())
    finally:
        leg.close()


async def _relay(call: Call, leg: Leg, headers: RawHeaders) -> None:
    """Pass the answer on piece by piece. It starts with the first piece, so that a refusal can still be one."""
    is_started = False
    async for piece in leg.pieces():
        if not is_started:
            is_started = True
            await call.start(200, [*headers, *leg.receipt_headers()])
        await call.send(piece)
    last = await leg.finish()
    if not is_started:
        await call.start(200, [*headers, *leg.receipt_headers()])
    await call.send(last, more=False)


async def _break_off(call: Call, operation: Operation, problem: Refused) -> None:
    """The answer had begun. A stream of events can say what happened; sound can only stop without its end."""
    if operation.delivery == EVENTS:
        await call.send(b"data: " + errors.openai_error(problem) + b"\n\n", more=False)


async def answer_error(call: Call, problem: Refused, receipt_headers: RawHeaders) -> None:
    headers = [_JSON, *receipt_headers]
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", str(problem.retry_after_s).encode()))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await call.answer(problem.status, headers, errors.body(call.shape, problem, str(call.id)))


async def _answer_json(call: Call, value: object) -> None:
    headers = [_JSON, (b"x-insighto-request-id", str(call.id).encode()), (b"cache-control", b"no-store")]
    await call.answer(200, headers, msgspec.json.encode(value))

"""The playground: talk to an assistant, see the answer stream in, hear it, and see who paid for each leg."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.http import HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import aget_object_or_404, get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from accounts.models import Membership
from accounts.permissions import AccountRequest, require_role
from gateway import pipeline, selectors
from gateway.errors import Refused
from gateway.forms import LineForm
from gateway.models import Assistant, Message
from gateway.services import assistants
from insighto.lib import ids
from insighto.lib.batcher import Overloaded


@require_GET
@require_role(Membership.Role.MEMBER)
def playground_open(request: AccountRequest) -> HttpResponse:
    """The assistant last talked to, else the first; without one, the list says how to add it."""
    assistant = selectors.last_talked_to(request.account, request.user)
    return redirect("gateway:playground_show", assistant.pk) if assistant else redirect("gateway:assistant_list")


@require_GET
@require_role(Membership.Role.MEMBER)
def playground_show(request: AccountRequest, assistant_id: UUID) -> HttpResponse:
    assistant = get_object_or_404(Assistant.objects.of(request.account), pk=assistant_id)
    return _page(request, assistant, LineForm())


@require_POST
@require_role(Membership.Role.MEMBER)
def conversation_clear(request: AccountRequest, assistant_id: UUID) -> HttpResponse:
    assistant = get_object_or_404(Assistant.objects.of(request.account), pk=assistant_id)
    assistants.start_over(assistant=assistant, user=request.user)
    return redirect("gateway:playground_show", assistant.pk)


@require_GET
@require_role(Membership.Role.MEMBER)
def line_receipts(request: AccountRequest, assistant_id: UUID, message_id: UUID) -> HttpResponse:
    """The receipts of one answer's legs, as they stand: fetched again once it was spoken."""
    line = get_object_or_404(
        Message.objects.of(request.account).filter(assistant_id=assistant_id, user=request.user), pk=message_id
    )
    selectors.attach_receipts([line])
    return render(request, "gateway/_receipts.html", {"line": line})


@require_POST
@require_role(Membership.Role.MEMBER)
async def line_send(request: AccountRequest, assistant_id: UUID) -> HttpResponseBase:
    """One line to the assistant. A script gets the answer as server-sent events: `text`, `error`, and last `foot`,
    the markup beneath the answer; a plain form gets the page again once the answer is there."""
    assistant = await aget_object_or_404(Assistant.objects.of(request.account), pk=assistant_id)
    form = LineForm(request.POST)
    if not form.is_valid():
        return await sync_to_async(_page)(request, assistant, form, 400)
    turn = _Turn(request, assistant)
    await turn.begin(form.cleaned_data["text"])
    if "text/event-stream" in request.headers.get("accept", ""):
        response = StreamingHttpResponse(turn.events(), content_type="text/event-stream; charset=utf-8")
        response["cache-control"] = "no-store"
        response["x-accel-buffering"] = "no"
        return response
    async for _ in turn.events():
        pass
    return redirect(f"{reverse('gateway:playground_show', args=[assistant.pk])}#line-{turn.answer.pk}")


@require_POST
@require_role(Membership.Role.MEMBER)
async def line_speak(request: AccountRequest, assistant_id: UUID, message_id: UUID) -> HttpResponseBase:
    """The answer as sound, streamed; a header says where its receipts are. Without script it is a file to keep."""
    assistant = await aget_object_or_404(Assistant.objects.of(request.account), pk=assistant_id)
    lines = Message.objects.of(request.account).filter(assistant=assistant, user=request.user, role="assistant")
    line = await aget_object_or_404(lines, pk=message_id)
    request_id = ids.new()
    response: HttpResponseBase
    try:
        speech = await pipeline.speak(
            account=request.account, user=request.user, assistant=assistant, text=line.text, request_id=request_id
        )
    except (Refused, Overloaded) as refusal:
        problem = str(refusal) or "The service is busy. Nothing was charged."
        response = await sync_to_async(_not_spoken)(request, assistant, line, problem)
    else:
        response = StreamingHttpResponse(_sound(speech), content_type=speech.content_type)
        if "audio/" not in request.headers.get("accept", ""):
            # A plain form: browsers play a page of sound by asking for it a second time, which would speak again.
            response["content-disposition"] = f'attachment; filename="answer-{line.pk}.mp3"'
    await sync_to_async(assistants.spoken)(message=line, request_id=request_id)
    response["x-insighto-receipts"] = reverse("gateway:line_receipts", args=[assistant.pk, line.pk])
    response["x-insighto-request-id"] = str(request_id)
    response["cache-control"] = "no-store"
    return response


def _not_spoken(request: AccountRequest, assistant: Assistant, line: Message, problem: str) -> HttpResponseBase:
    """Why there is no sound: data for the script (a refusal is an answer, not a fault), a notice for a plain form."""
    if "application/json" in request.headers.get("accept", ""):
        return JsonResponse({"message": problem})
    messages.error(request, problem)
    return redirect(f"{reverse('gateway:playground_show', args=[assistant.pk])}#line-{line.pk}")


class _Turn:
    """One line and its answer: streamed to whoever reads, kept whether they stay or leave."""

    def __init__(self, request: AccountRequest, assistant: Assistant) -> None:
        self._request = request
        self._assistant = assistant
        self._request_id: UUID | None = None
        self._text: list[str] = []
        self.answer: Message

    async def begin(self, text: str) -> None:
        _, self.answer = await sync_to_async(assistants.say)(
            assistant=self._assistant, user=self._request.user, text=text
        )

    async def events(self) -> AsyncIterator[bytes]:
        is_complete = False
        try:
            history = await sync_to_async(self._history)()
            failed = False
            async for event in pipeline.stream_chat(
                account=self._request.account, user=self._request.user, assistant=self._assistant, messages=history
            ):
                if isinstance(event, pipeline.TextDelta):
                    self._text.append(event.text)
                    yield _event("text", event.text)
                elif isinstance(event, pipeline.Failure):
                    failed = True
                    yield _event("error", event.message)
                else:
                    self._request_id = event.request_id
            is_complete = not failed and bool(self._text)
        finally:
            # Shielded: a person who left finds what had arrived when they come back.
            await asyncio.shield(sync_to_async(self._keep)(is_complete))
        yield _event("foot", await sync_to_async(self._foot)())

    def _history(self) -> list[dict[str, str]]:
        lines = selectors.conversation(self._assistant, self._request.user)
        return [{"role": line.role, "content": line.text} for line in lines if line.text]

    def _keep(self, is_complete: bool) -> None:
        assistants.finish(
            message=self.answer, text="".join(self._text), request_id=self._request_id, is_complete=is_complete
        )

    def _foot(self) -> str:
        selectors.attach_receipts([self.answer])
        context = {"line": self.answer, "assistant": self._assistant, "account": self._request.account}
        return render_to_string("gateway/_line_foot.html", context, request=self._request)


async def _sound(speech: pipeline.Speech) -> AsyncIterator[bytes]:
    try:
        async for piece in speech.pieces:
            yield piece
    except Refused:
        return  # the sound ends here; the receipt says why


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _page(request: AccountRequest, assistant: Assistant, form: LineForm, status: int = 200) -> HttpResponse:
    context = {
        "assistant": assistant,
        "others": [card for card in selectors.assistant_names(request.account).items() if card[0] != assistant.pk],
        "routes": selectors.routes_of(assistant, selectors.routes(request.account)),
        "conversation": selectors.conversation(assistant, request.user),
        "form": form,
    }
    return render(request, "gateway/playground_show.html", context, status=status)

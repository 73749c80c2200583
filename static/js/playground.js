// The playground: send a line, let the answer stream in, have it spoken, show each leg's receipt.
// Without this module the same forms post and reload.
import { toast } from "./toast.js";

const root = document.querySelector("[data-playground]");
const lines = root.querySelector("[data-lines]");
const composer = root.querySelector("[data-composer]");
const field = composer.querySelector("textarea");
const sendButton = composer.querySelector("[data-send]");
const speakAtOnce = composer.querySelector("[data-speak-at-once]");

function addLine(role) {
  const template = root.querySelector(`[data-line-template=${role}]`);
  const line = template.content.firstElementChild.cloneNode(true);
  lines.append(line);
  root.querySelector("[data-empty]").hidden = true;
  return line;
}

// Server-sent events of a POST: EventSource cannot post, so the stream is read by hand.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
      const event = { name: "message", data: "" };
      for (const row of buffer.slice(0, end).split("\n")) {
        if (row.startsWith("event: ")) event.name = row.slice(7);
        if (row.startsWith("data: ")) event.data += row.slice(6);
      }
      yield { name: event.name, data: JSON.parse(event.data) };
    }
  }
}

function nearEnd() {
  return document.documentElement.scrollHeight - window.scrollY - window.innerHeight < 160;
}

async function send() {
  const text = field.value.trim();
  if (!text) return;
  const body = new FormData(composer);
  addLine("user").querySelector("[data-text]").textContent = text;
  const answer = addLine("assistant");
  const shown = answer.querySelector("[data-text]");
  const foot = answer.querySelector("[data-foot]");
  field.value = "";
  sendButton.disabled = true;
  answer.scrollIntoView({ block: "nearest" });
  try {
    const response = await fetch(composer.action, { method: "POST", body, headers: { accept: "text/event-stream" } });
    if (!response.ok || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
      throw new Error("refused");
    }
    for await (const { name, data } of events(response)) {
      const follow = nearEnd();
      if (name === "text") shown.append(data);
      if (name === "error") {
        const notice = document.createElement("p");
        notice.className = "field-error";
        notice.textContent = data;
        answer.insertBefore(notice, foot);
      }
      if (name === "foot") foot.innerHTML = data;
      if (follow) window.scrollTo({ top: document.documentElement.scrollHeight });
    }
  } catch {
    toast("The connection broke. Reload to see what was kept.");
    foot.replaceChildren();
  } finally {
    answer.dataset.state = "done";
    sendButton.disabled = false;
    field.focus();
  }
  if (speakAtOnce?.checked) await speak(foot.querySelector("[data-speak]"));
}

async function speak(form) {
  if (!form) return;
  const foot = form.closest("[data-foot]");
  const button = form.querySelector("button");
  const label = form.querySelector("[data-label]");
  button.disabled = true;
  label.textContent = "Speaking…";
  try {
    const response = await fetch(form.action, {
      method: "POST",
      body: new FormData(form),
      headers: { accept: "audio/mpeg, application/json" },
    });
    const receipts = response.headers.get("x-insighto-receipts");
    if (response.ok && response.headers.get("content-type")?.startsWith("audio/")) {
      const audio = foot.querySelector("audio") ?? document.createElement("audio");
      if (audio.src) URL.revokeObjectURL(audio.src);
      audio.controls = true;
      audio.src = URL.createObjectURL(await response.blob());
      form.after(audio);
      audio.play().catch(() => toast("Press play to hear it"));
    } else {
      toast((await response.json()).message);
    }
    if (receipts) {
      const answer = await fetch(receipts);
      if (answer.ok) foot.querySelector(".receipts").innerHTML = await answer.text();
    }
  } catch {
    toast("The connection broke. Nothing was played.");
  } finally {
    button.disabled = false;
    label.textContent = "Speak";
  }
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
field.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!sendButton.disabled) composer.requestSubmit();
  }
});
lines.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-speak]");
  if (!form) return;
  event.preventDefault();
  speak(form);
});

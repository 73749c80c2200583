"""The sandbox's own page: every key and what it does, and the last calls. No script; a click selects a whole key."""

import base64
import hashlib
from datetime import UTC, datetime
from html import escape

from aiohttp import web

from insighto.sandbox import journal, keys
from insighto.sandbox.call import STATE, Sandbox
from insighto.sandbox.keys import Outcome, SandboxKey

SHOWN_CALLS = 30
_TITLES = {keys.OPENAI: "OpenAI", keys.AZURE: "Azure Speech", keys.ELEVENLABS: "ElevenLabs"}
_GROUPS: tuple[tuple[str, str, str], ...] = (
    ("good", "Keys that work", "Each is an account of its own at the provider."),
    ("refused", "Keys the provider refuses", "It has looked at the key and has something to say about it."),
    ("trouble", "Trouble on the way", "Says nothing about the key: a stored verdict must stay as it is."),
)
_REFUSED = frozenset({
    Outcome.INVALID, Outcome.DEACTIVATED, Outcome.WRONG_REGION, Outcome.RESTRICTED, Outcome.RESTRICTED_PARTLY,
    Outcome.RESTRICTED_IN_USE, Outcome.FIREWALL, Outcome.WRONG_PROJECT, Outcome.PLAN_TOO_LOW,
    Outcome.UNUSUAL_ACTIVITY, Outcome.FREE_DISABLED, Outcome.NO_QUOTA, Outcome.NO_QUOTA_IN_USE,
})  # fmt: skip

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5a6478; --line: #dfe3ea; --paper: #f6f7f9; --card: #fff;
  --accent: #4338ca; --good: #17703c; --good-bg: #e3f5ea; --refused: #b3261e; --refused-bg: #fdeaea;
  --trouble: #8a5300; --trouble-bg: #fff1d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --soft: #a3adc0; --line: #303847; --paper: #12161f;
  --card: #1a202c; --accent: #a5b4fc; --good: #7ddba0; --good-bg: #12331f; --refused: #ffb0a8; --refused-bg: #421a18;
  --trouble: #ffcf85; --trouble-bg: #3b2a0d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 0; font-size: 1.25rem; }
h3 { margin: 1.5rem 0 0; font-size: 1rem; }
p { margin: .35rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .5rem 1.25rem; margin-top: 1rem; }
section { margin: 1.5rem 0; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; }
code { font: .8125rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.key { word-break: break-all; }
.address { display: inline-block; margin-top: .25rem; }
.key, .address { padding: .1rem .4rem; background: var(--paper); border: 1px solid var(--line); border-radius: .375rem;
  user-select: all; cursor: copy; }
ul { margin: .5rem 0 0; padding: 0; list-style: none; }
li { display: grid; grid-template-columns: 11rem 1fr; gap: .15rem 1rem; padding: .6rem 0;
  border-top: 1px solid var(--line); }
li > div { min-width: 0; }
.tag { justify-self: start; align-self: start; padding: .05rem .55rem; border-radius: 1rem; font-size: .8125rem;
  font-weight: 600; }
.good { color: var(--good); background: var(--good-bg); }
.refused { color: var(--refused); background: var(--refused-bg); }
.trouble { color: var(--trouble); background: var(--trouble-bg); }
.scroll { overflow-x: auto; margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; border-top: 1px solid var(--line); white-space: nowrap; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
footer { padding-bottom: 2.5rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 40rem) { li { grid-template-columns: 1fr; } section { padding: 1rem; }
  header { padding-top: 1.5rem; } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def show(request: web.Request) -> web.Response:
    sandbox = request.app[STATE]
    links = "".join(f'<a href="#{provider}">{title}</a>' for provider, title in _TITLES.items())
    providers = "".join(_provider(sandbox, provider) for provider in keys.PROVIDERS)
    body = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sandbox providers</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        "<header><h1>Sandbox providers</h1>"
        "<p>This server on your own machine speaks the protocols of OpenAI, Azure Speech and ElevenLabs. "
        "Nothing leaves the machine, nothing costs money, and none of these keys is worth anything elsewhere.</p>"
        '<p class="soft">Click a key to select all of it, then copy.</p>'
        f'<nav aria-label="On this page">{links}<a href="#calls">Last calls</a></nav></header><main>'
        f"{_trouble_now(sandbox)}{providers}{_calls(sandbox)}"
        '</main><footer><p class="soft">For scripts: <a href="/_calls">/_calls</a> (filters <code>provider</code>, '
        '<code>tag</code>, <code>since</code>), <code>POST /_control</code>, <a href="/_health">/_health</a>.</p>'
        "</footer></body></html>"
    )
    return web.Response(text=body, content_type="text/html", headers=_HEADERS)


def _trouble_now(sandbox: Sandbox) -> str:
    lines = [
        f"{_TITLES[provider]}: everything is <b>{_words(outcome)}</b>" for provider, outcome in sandbox.outages.items()
    ]
    if sandbox.outcomes:
        lines.append(f"{len(sandbox.outcomes)} key(s) do something else than listed here")
    if not lines:
        return ""
    return f'<section class="trouble"><h2>Changed at run time</h2><p>{"<br>".join(lines)}</p></section>'


def _provider(sandbox: Sandbox, provider: str) -> str:
    listed = list(keys.listed(provider))
    parts = []
    for tone, title, meaning in _GROUPS:
        rows = "".join(_row(known, what, tone) for known, what in listed if _tone(known.outcome) == tone)
        parts.append(f'<h3>{title}</h3><p class="soft">{meaning}</p><ul>{rows}</ul>')
    address = {
        keys.OPENAI: f"{sandbox.url}/openai/v1",
        keys.AZURE: f"{sandbox.url}/azure/{{region}}",
        keys.ELEVENLABS: f"{sandbox.url}/elevenlabs",
    }[provider]
    region = (
        f'<p class="soft">Enter the region <b>{keys.DEFAULT_REGION}</b> with these keys, unless it says otherwise.</p>'
        if provider == keys.AZURE
        else ""
    )
    return (
        f'<section id="{provider}"><h2>{_TITLES[provider]}</h2><code class="address">{escape(address)}</code>{region}'
        f"{''.join(parts)}</section>"
    )


def _row(known: SandboxKey, what: str, tone: str) -> str:
    label = f"Valid: {known.tag}" if known.outcome is Outcome.VALID else _words(known.outcome).capitalize()
    return (
        f'<li><span class="tag {tone}">{escape(label)}</span><div>{escape(what[:1].upper() + what[1:])}.<br>'
        f'<code class="key">{escape(known.text)}</code></div></li>'
    )


def _calls(sandbox: Sandbox) -> str:
    found = sandbox.calls.find(limit=SHOWN_CALLS)
    if not found:
        return '<section id="calls"><h2>Last calls</h2><p class="soft">Nobody has called yet.</p></section>'
    rows = "".join(_call(entry) for entry in reversed(found))
    return (
        '<section id="calls"><h2>Last calls</h2><div class="scroll" tabindex="0" role="region" aria-label="Last calls">'
        '<table><thead><tr><th scope="col">Time</th><th scope="col">Provider</th><th scope="col">Whose key</th>'
        '<th scope="col">Call</th><th scope="col">Answer</th><th scope="col">State</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _call(entry: journal.Entry) -> str:
    at = datetime.fromtimestamp(entry.started_at, UTC)
    return (
        f'<tr><td><time datetime="{at.isoformat()}">{at:%H:%M:%S}</time></td>'
        f"<td>{escape(_TITLES.get(entry.provider, entry.provider))}</td><td>{escape(entry.tag)}</td>"
        f"<td><code>{escape(entry.method)} {escape(entry.path)}</code></td>"
        f'<td class="number">{entry.status or "–"}</td><td>{escape(entry.state)}</td></tr>'
    )


def _tone(outcome: Outcome) -> str:
    if outcome is Outcome.VALID:
        return "good"
    return "refused" if outcome in _REFUSED else "trouble"


def _words(outcome: Outcome) -> str:
    return outcome.value.replace("_", " ")

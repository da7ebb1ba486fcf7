// One's own account, the broker as it is set up, its zones, and the backup.
import { html, useEffect, useState } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Table, Badge, When, Got, Field, Form, Copy, Note } from "../parts.js";
import { say, confirm } from "../dialogs.js";
import { count, host, octets } from "../text.js";
import { useWho } from "../who.js";
import { Qr } from "../qr.js";

export function Settings() {
  const who = useWho();
  return html`<${Page} title="Settings" lead=${who.member ? "How these pages look in this browser." : "Your account, this broker, its zones, and the backup."}>
    <div class="grid">
      <div class="half stack">${who.expires && html`<${Second} /><${Password} /><${Sessions} />`}<${Looks} /></div>
      <div class="half stack">${!who.member && html`<${Broker} />${who.change && html`<${Standbys} />`}<${Zones} />${who.change && html`<${Backup} />`}`}</div>
    </div>
  <//>`;
}

function Second() {
  const who = useWho();
  const [secret, show] = useState(null);
  const begin = async () => {
    try {
      show(await api.post("/session/totp"));
    } catch (problem) {
      say(problem.message);
    }
  };
  const confirmed = async ({ code }) => {
    await api.put("/session/totp", { code: code.replace(/\s/g, "") });
    show(null);
    await who.refresh();
    say("From now on a one-time code is asked for at the door.");
  };
  return html`<${Card} title="Second factor" actions=${html`<${Badge} tone=${who.totp ? "ok" : "warn"}>${who.totp ? "in use" : "not set up"}<//>`}>
    ${secret
      ? html`<p>Scan this with an authenticator app, or type the secret; then enter the code that it shows.</p><${Qr} text=${secret.uri} /><${Copy} text=${secret.secret} label="Copy the secret" />
        <${Form} act=${confirmed} verb="Take it into use" onCancel=${() => show(null)}><${Field} label="Code" name="code" inputmode="numeric" autocomplete="one-time-code" required maxlength="8" /><//>`
      : html`<p class="soft">A code from your phone beside the password: who steals one of them does not get in.</p><button class=${who.totp ? "" : "primary"} onClick=${begin}>${who.totp ? "Replace it" : "Set it up"}</button>`}
  <//>`;
}

function Password() {
  const [turn, again] = useState(0);
  const act = async ({ old, fresh, repeat }) => {
    if (fresh !== repeat) throw new Error("The new password and its repetition differ.");
    await api.put("/session/password", { old, new: fresh });
    again(turn + 1);
    say("The password is changed. Your other sessions have ended.");
  };
  return html`<${Card} title="Password"><${Form} key=${turn} act=${act} verb="Change it">
    <${Field} label="The one in use" type="password" name="old" autocomplete="current-password" required />
    <${Field} label="The new one" type="password" name="fresh" autocomplete="new-password" required minlength="12" maxlength="1024" hint="12 characters or more." />
    <${Field} label="The new one again" type="password" name="repeat" autocomplete="new-password" required />
  <//><//>`;
}

function Sessions() {
  const list = useGet("/sessions", undefined, ["administrator."]);
  const end = async (one) => {
    try {
      await api.remove(`/sessions/${api.seg(one.id)}`);
      say("That session has ended.");
      list.reload();
    } catch (problem) {
      say(problem.message);
    }
  };
  return html`<${Card} flush title="Your sessions"><${Got} from=${list}>${({ items }) => html`<${Table} caption="Your sessions" rows=${items} keyOf=${(one) => one.id} columns=${[
    { label: "From", show: (one) => html`<span class="mono small">${one.address ?? "–"}</span>${one.current && html` <${Badge} tone="ok">this one<//>`}` },
    { label: "Began", show: (one) => html`<${When} at=${one.began} />` },
    { label: "Last used", show: (one) => html`<${When} at=${one.used} />` },
    { label: "", show: (one) => !one.current && html`<div class="actions"><button class="small danger" onClick=${() => end(one)} aria-label=${`End the session from ${one.address}`}>End</button></div>` },
  ]} />`}<//><//>`;
}

function Looks() {
  const [chosen, set] = useState(() => {
    try {
      return localStorage.getItem("theme") ?? "";
    } catch {
      return "";
    }
  });
  const choose = (event) => {
    set(event.currentTarget.value);
    dispatchEvent(new CustomEvent("theme-choose", { detail: event.currentTarget.value || null }));
  };
  return html`<${Card} title="Looks"><${Field} label="Theme" as="select" value=${chosen} options=${[["", "As the system"], ["light", "Light"], ["dark", "Dark"]]} onChange=${choose} /><//>`;
}

function Broker() {
  const status = useGet("/status", undefined, ["zone.", "store."]);
  const at = (list) => (list.length ? html`<span class="mono small">${list.join(", ")}</span>` : html`<span class="soft">off</span>`);
  return html`<${Card} title="This broker"><${Got} from=${status}>${(status) => html`<dl class="facts">
      <dt>Federation</dt><dd>${host(status.federation)}</dd><dt>Name</dt><dd>${host(status.broker)}</dd><dt>Version</dt><dd>${status.version}</dd>
      <dt>Started</dt><dd><${When} at=${status.started} /></dd><dt>Store</dt><dd>${status.store}</dd>
      <dt>Look-ups (DoH)</dt><dd><span class="mono small">${status.listeners.doh_url}</span></dd>
      <dt>Enrolment, API</dt><dd><span class="mono small">${status.listeners.api_url}</span></dd>
      <dt>Revocation lists</dt><dd><span class="mono small">${status.listeners.pki_url || "not published"}</span></dd>
      <dt>Plain DNS</dt><dd>${at(status.listeners.dns)}</dd><dt>Transfers (TLS)</dt><dd>${at(status.listeners.xot)}</dd><dt>Metrics</dt><dd>${at(status.listeners.metrics)}</dd>
    </dl><p class="soft small">These are set in <code>dnsbroker.toml</code> on the broker's machine; <code>dnsbroker config check</code> says what a change would do. The API is described at <a href="/api/v1/openapi.json">/api/v1/openapi.json</a>.</p>`}<//><//>`;
}

/** The primary and its standbys; on a standby, how it follows. */
function Standbys() {
  const known = useData(() => api.get("/standby").catch((problem) => (problem.status === 404 ? null : Promise.reject(problem))), [], ["standby.", "replica.", "primary."]);
  // That one comes, goes or lags is no event.
  useEffect(() => {
    const timer = setInterval(() => document.visibilityState === "visible" && known.reload(), 5000);
    return () => clearInterval(timer);
  }, [known.reload]);
  const promote = (standing) => confirm({ title: "Take the primary's place?", name: host(standing.name), verb: "Promote", text: "This broker takes changes from then on. What the primary has acknowledged and not sent yet would be lost: do it when the primary is gone for good, or stopped.", act: () => api.post("/standby/promote"), done: "This broker is the primary now." });
  return html`<${Got} from=${known}>${(standing) => standing && html`<${Card} title="Standbys" actions=${html`<${Badge} tone=${standing.role === "primary" ? "ok" : "warn"}>this one: ${standing.role}<//>`}>
    ${standing.standbys?.length > 0 && html`<ul class="todo">${standing.standbys.map((one) => html`<li><${Badge} tone=${one.connected ? "ok" : "bad"}>${one.connected ? "connected" : "away"}<//> <span><bdi>${host(one.name)}</bdi> <span class="soft small">${one.act != null ? `has act ${count(one.act)} of ${count(standing.act)}` : ""}</span></span></li>`)}</ul>`}
    ${standing.following && html`<dl class="facts"><dt>Follows</dt><dd class="mono small">${standing.following.url}</dd><dt>Connected</dt><dd>${standing.following.connected ? "yes" : html`no: <bdi>${standing.following.error ?? ""}</bdi>`}</dd><dt>Behind</dt><dd>${count(standing.following.behind)} acts</dd><dt>Look-ups</dt><dd>${standing.following.answers ? "are answered" : "are refused: it has heard nothing for too long"}</dd></dl><p><button class="danger" onClick=${() => promote(standing)}>Promote</button></p>`}
    ${(standing.notes ?? []).map((note) => html`<p class="small"><bdi>${note}</bdi></p>`)}
    ${standing.role === "primary" && !standing.standbys?.length && html`<p class="soft">None. A second broker can follow this one, commit by commit, and take its place by one command.</p>`}
  <//>`}<//>`;
}

function Zones() {
  const zones = useGet("/zones", undefined, ["zone.", "devices.", "netid."]);
  const [found, set] = useState(null);
  const check = async () => {
    try {
      set(await api.get("/zones/check"));
    } catch (problem) {
      say(problem.message);
    }
  };
  const download = (zone) => save(`/zones/${zone}/export`, `${zone}.zone`);
  return html`<${Card} flush title="Zones" actions=${html`<button class="small" onClick=${check}>Check them</button>`}>
    <div role="status">${found && html`<div class="inset"><${Note} tone=${found.ok ? "ok" : "bad"} title=${found.ok ? "The zones are sound" : "Something is wrong"}>${[...found.errors, ...found.warnings].map((line) => html`<p><bdi>${line}</bdi></p>`)}${found.ok && !found.warnings.length && "No mistake and nothing odd was found."}<//></div>`}</div>
    <${Got} from=${zones}>${({ items }) => html`<${Table} caption="Zones" rows=${items} keyOf=${(zone) => zone.id} columns=${[
      { label: "Zone", show: (zone) => html`${host(zone.name)}<p class="soft small">${zone.private ? "private" : "public"}</p>` },
      { label: "Serial", num: true, show: (zone) => zone.serial },
      { label: "Names", num: true, show: (zone) => count(zone.names) },
      { label: "", show: (zone) => html`<div class="actions"><button class="small" onClick=${() => download(zone.id)} aria-label=${`Export ${zone.id}`}>Export</button></div>` },
    ]} />`}<//><//>`;
}

/** Fetches octets and gives them to the browser as a file. */
async function save(path, name) {
  try {
    const response = await api.raw(path);
    const blob = await response.blob();
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`${name}: ${octets(blob.size)}.`);
  } catch (problem) {
    say(problem.message);
  }
}

function Backup() {
  const [busy, set] = useState(false);
  const last = useGet("/audit", { act: "backup", limit: 1, order: "desc" }, ["backup"]);
  const take = async () => {
    set(true);
    await save("/backup", `dnsbroker-${new Date().toISOString().slice(0, 10)}.backup`);
    set(false);
  };
  return html`<${Card} title="Backup">
    <p>One file with the store and the CA's files, all but the root's key and the passphrase. Keep it as you keep keys.</p>
    <p class="soft">${last.data?.items.length ? html`The last one was taken <${When} at=${last.data.items[0].at} /> by <bdi>${last.data.items[0].actor}</bdi>.` : "None was taken yet."}</p>
    <button class="primary" onClick=${take} disabled=${busy}>${busy ? "Taking it…" : "Download a backup"}</button>
    <p class="soft small"><br />To restore: <code>dnsbroker restore FILE</code> on a machine where the broker is stopped.</p>
  <//>`;
}

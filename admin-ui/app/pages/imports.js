// Lists of devices: first what would happen, then the doing, with the progress in sight.
import { html, useState, useRef } from "../html.js";
import * as api from "../api.js";
import { useData, useGet } from "../live.js";
import { Page, Card, Table, Eui, NetId, When, Got, Empty, Field, Form, Note, Trouble, Words } from "../parts.js";
import { confirm } from "../dialogs.js";
import { count, octets, plural } from "../text.js";
import { useWho } from "../who.js";

const MODES = [["add", "Add: what the list does not name stays"], ["full", "Full: the list is all there is; what it does not name is removed"], ["remove", "Remove: take the listed devices out"]];
const FORMATS = [["", "Guess from the content"], ["plain", "One DevEUI a line"], ["csv", "CSV"], ["json", "JSON"], ["ndjson", "JSON, one a line"], ["zone", "Zone file (RFC 1035)"], ["getdb", "Output of getdb.py"]];

export function Imports({ query }) {
  const who = useWho();
  const networks = useData(() => api.all("/netids", { member: who.member ?? undefined }), [], ["netid."]);
  return html`<${Page} title="Imports" lead="Register the devices of a NetID from a list, in whatever form you have it. A device that another member holds is reported, and never taken.">
    <div class="stack"><${Got} from=${networks}>${(networks) =>
      networks.length
        ? who.change || who.member
          ? html`<${Sender} networks=${networks} first=${query.netid} />`
          : html`<${Note}>Auditors look on: lists are sent by administrators and members.<//>`
        : html`<${Card}><${Empty} icon="netids" title="No NetID to import into">Devices are registered under a NetID: give a member one first.<//><//>`}<//>
    ${!who.member && html`<${Past} />`}</div>
  <//>`;
}

function Sender({ networks, first }) {
  const [job, set] = useState(null);
  const [progress, move] = useState(0);
  const alive = useRef(true);
  const run = async (list, { dry, shrink }) => {
    const network = networks.find((network) => network.netid === list.netid);
    move(0);
    set({ ...list, state: "sending", dry });
    try {
      const values = { mode: list.mode, format: list.format, dry_run: dry, allow_shrink: shrink ? true : undefined };
      const report = await api.upload(`/members/${api.seg(network.member)}/netids/${api.seg(network.netid)}/devices`, values, list.body, "application/octet-stream", move);
      set({ ...list, state: dry ? "tried" : "done", report });
    } catch (error) {
      set({ ...list, state: "failed", error, dry });
      if (error.status === 0) throw error;
    }
  };
  const act = async (values, data) => {
    const file = data.get("file");
    const body = file?.size ? file : new Blob([values.text ?? ""]);
    if (!body.size) throw new Error("The list is empty: choose a file, or paste the DevEUIs.");
    await run({ netid: values.netid, mode: values.mode, format: values.format, body, name: file?.size ? file.name : "pasted text" }, { dry: true });
  };
  // With several to choose from, none is taken for granted: a full list removes what it does not name.
  const chosen = networks.some((network) => network.netid === first) ? first : networks.length === 1 ? networks[0].netid : "";
  const large = job?.error && /shrink|drop/.test(`${job.error.code} ${job.error.message}`);
  const insist = () => confirm({ title: "Let most of the devices go?", name: job.netid, verb: "Go on", text: "The list drops most of what this NetID has. That is right when devices really went, and wrong when the list is cut off.", act: () => run(job, { dry: job.dry, shrink: true }) });
  return html`<div class="grid"><${Card} className="half" title="The list">
      <${Form} act=${act} verb="Try it: what would happen?">
        <${Field} label="NetID" as="select" name="netid" required value=${chosen} options=${[...(chosen ? [] : [["", "Choose whose list it is"]]), ...networks.map((network) => [network.netid, `${network.netid} · ${network.member} · ${plural(network.devices, "device")}`])]} />
        <${Field} label="How" as="select" name="mode" value="add" options=${MODES} />
        <${Field} label="File" type="file" name="file" accept=".txt,.csv,.json,.ndjson,.zone,.db,text/*" hint="Plain, CSV, JSON or a zone file; up to 50 million devices." />
        <${Field} label="Or paste" as="textarea" name="text" placeholder=${"0004a30b001c0530\n00-04-A3-0B-00-1C-05-31"} />
        <${Field} label="Format" as="select" name="format" value="" options=${FORMATS} />
      <//>
    <//>
    <${Card} className="half" title="What it does">
      <div role="status" aria-live="polite">
      ${!job && html`<${Empty} icon="imports" title="Nothing tried yet">Choose a list and try it: you see what would be added, moved and removed before anything changes.<//>`}
      ${job?.state === "sending" && html`<p>${job.dry ? "Trying" : "Importing"} <bdi>${job.name}</bdi> (${octets(job.body.size)})… ${progress < 1 ? `${Math.round(progress * 100)} % sent` : "sent; the broker works on it"}</p><div class="bar-run" role="progressbar" aria-label="Sent" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(progress * 100)}><i style=${{ width: `${progress * 100}%` }}></i></div>`}
      ${job?.state === "failed" && html`<${Trouble} error=${job.error} />${large && html`<p><button class="danger" onClick=${insist}>The devices are really gone…</button></p>`}`}
      ${(job?.state === "tried" || job?.state === "done") && html`<${Report} report=${job.report} done=${job.state === "done"} />`}
      </div>
      ${job?.state === "tried" && html`<div class="form-end"><button onClick=${() => set(null)}>Discard</button><button class="primary" onClick=${() => run(job, { dry: false, shrink: job.shrink })}>Import for real</button></div>`}
    <//></div>`;
}

function Report({ report, done }) {
  const happened = done ? (report.added === 1 ? "was" : "were") : "would be";
  const lines = [["Added", report.added], ["Moved from another NetID of the member", report.moved], ["Removed", report.removed], ["Unchanged", report.unchanged], ["Not there to remove", report.absent], ["Repeated in the list", report.repeated], ["Held by another member", report.claimed], ["Outside the member's ranges", report.outside], ["Rows without a DevEUI", report.rejected]];
  const problems = report.claimed + report.outside + report.rejected;
  return html`<${Note} tone=${done ? "ok" : problems ? "warn" : ""} title=${done ? `Done: serial ${report.serial}` : "Nothing has changed yet"}>${plural(report.added, "device")} ${happened} added, ${count(report.removed)} removed${problems ? `; ${plural(problems, "row")} left out` : ""}.<//>
    <dl class="facts report">${lines.filter(([words, n]) => n || words === "Added").map(([words, n]) => html`<dt>${words}</dt><dd>${count(n)}</dd>`)}</dl>
    ${report.rejects.length > 0 && html`<details open><summary>Rows without a DevEUI</summary><${Table} caption="Rows without a DevEUI" rows=${report.rejects} keyOf=${(row) => row.line} columns=${[{ label: "Line", show: (row) => count(row.line) }, { label: "Text", show: (row) => html`<bdi class="mono small">${row.text}</bdi>` }, { label: "Why", show: (row) => html`<${Words}>${row.reason}<//>` }]} /></details>`}
    ${report.claims.length > 0 && html`<details open><summary>Held by another member: ${done ? "these are claims now, to be settled" : "these would become claims"}</summary><ul class="inline-list">${report.claims.map((id) => html`<li><${Eui} id=${id} /></li>`)}</ul></details>`}
    ${report.outsiders?.length > 0 && html`<details><summary>Outside the member's ranges</summary><ul class="inline-list">${report.outsiders.map((id) => html`<li><${Eui} id=${id} /></li>`)}</ul></details>`}`;
}

function Past() {
  const list = useGet("/audit", { act: "devices.import", limit: 20, order: "desc" }, ["devices."]);
  return html`<${Card} flush title="Imports so far"><${Got} from=${list}>${({ items }) => html`<${Table} caption="Imports so far" rows=${items} keyOf=${(row) => row.number} empty=${html`<${Empty} title="No list was imported yet" />`} columns=${[
    { label: "When", show: (row) => html`<${When} at=${row.at} />` },
    { label: "NetID", show: (row) => html`<${NetId} id=${row.object} />` },
    { label: "By", show: (row) => html`<bdi>${row.actor}</bdi>` },
    { label: "Added", num: true, show: (row) => count(row.detail?.added) },
    { label: "Removed", num: true, show: (row) => count(row.detail?.removed) },
    { label: "Claimed", num: true, show: (row) => count(row.detail?.claimed) },
    { label: "Serial", num: true, show: (row) => row.serial },
  ]} />`}<//><//>`;
}

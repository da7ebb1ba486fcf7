// The audit's acts in words.
import { html } from "./html.js";
import { moment } from "./text.js";

const WORDS = {
  "administrator.add": "Administrator added", "administrator.change": "Administrator changed", "administrator.remove": "Administrator removed", "administrator.login": "Logged in",
  "api-token.create": "API token made", "api-token.revoke": "API token revoked", backup: "Backup taken",
  "ca.request": "Issuing CA requested", "ca.publish": "Lists published elsewhere", "ca.retire": "Issuing CA retired", "ca.install": "Issuing CA installed", "certificate.enrol": "Enrolled", "certificate.issue": "Certificate issued", "certificate.renew": "Certificate renewed", "certificate.revoke": "Certificate revoked",
  "claim.open": "Device claimed", "claim.decide": "Claim decided", "claim.withdraw": "Claim withdrawn", "crl.issue": "Revocation list issued", "crl.install": "Root's revocation list installed",
  "devices.import": "Devices imported", "devices.change": "Devices changed", "devices.update": "Devices updated by DNS", "devices.release": "Devices released", "devices.move": "Devices moved",
  "key.create": "TSIG key made", "key.revoke": "TSIG key revoked", "limits.set": "Limits set",
  "member.add": "Member added", "member.rename": "Member renamed", "member.remove": "Member removed", "member.suspend": "Member suspended", "member.resume": "Member resumed", "member.grace": "Grace given", "member.name.approve": "Name approved", "member.name.withdraw": "Name no longer approved",
  "move.plan": "Move planned", "move.offer": "Move offered", "move.accept": "Move accepted", "move.prepare": "Move prepared", "move.done": "Move done", "move.fail": "Move failed", "move.cancel": "Move cancelled",
  "netid.set": "NetID set", "netid.remove": "NetID removed", "netid.anchors": "Trust anchors set", "policy.set": "Policy replaced", "policy.change": "Policy changed", "private.publish": "Private zones published", "public.publish": "Public zone published",
  "primary.set": "Primary named", "primary.promote": "Standby promoted",
  "replica.set": "Replica set", "replica.remove": "Replica removed", "source.set": "Source set", "source.remove": "Source removed", "source.accept": "Held transfer taken", "source.transfer": "Zone transferred in", "source.expire": "Source expired", "store.restore": "Store restored",
  "token.create": "Enrolment token made", "webhook.set": "Webhook set", "webhook.remove": "Webhook removed", "webhook.disable": "Webhook disabled",
};

export const inWords = (act) => WORDS[act] ?? act;

/** A row of the audit as a sentence. */
export const describe = (row) => html`${inWords(row.act)} <bdi class="mono small">${row.object}</bdi>`;

const TIMES = new Set(["at", "not_after", "next_update", "until", "expires", "grace"]);
const shown = (name, value) => {
  if (TIMES.has(name) && Number.isInteger(value) && value > 1e9) return moment(value * 1000);
  if (Array.isArray(value)) return value.map((one) => (typeof one === "object" ? JSON.stringify(one) : one)).join(" ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
};

/** Particulars as short pairs. */
export function particulars(detail) {
  if (!detail || typeof detail !== "object") return detail == null ? "" : String(detail);
  return Object.entries(detail).filter(([, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length)).map(([name, value]) => `${name.replaceAll("_", " ")}: ${shown(name, value)}`).join(", ");
}

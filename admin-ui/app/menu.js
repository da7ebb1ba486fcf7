// Which pages there are, at which addresses, and for whom.
import { Overview } from "./pages/overview.js";
import { Own } from "./pages/own.js";
import { Members, MemberPage } from "./pages/members.js";
import { Enrol } from "./pages/enrol.js";
import { NetIds, NetIdPage, NetIdForm } from "./pages/netids.js";
import { Devices, DevicePage } from "./pages/devices.js";
import { Imports } from "./pages/imports.js";
import { Claims } from "./pages/claims.js";
import { Moves } from "./pages/moves.js";
import { Policy } from "./pages/policy.js";
import { MapPage } from "./pages/map.js";
import { Sources, SourcePage, SourceForm } from "./pages/sources.js";
import { Replicas } from "./pages/replicas.js";
import { Transfers } from "./pages/transfers.js";
import { Certificates, CertificatePage } from "./pages/certificates.js";
import { Authority } from "./pages/ca.js";
import { TsigKeys, ApiTokens, EnrolmentTokens } from "./pages/keys.js";
import { People } from "./pages/people.js";
import { Audit } from "./pages/audit.js";
import { Webhooks } from "./pages/webhooks.js";
import { Settings } from "./pages/settings.js";
import { Find } from "./pages/find.js";

const DEVICES = ["Devices", [["devices", "Devices", "devices"], ["imports", "Imports", "imports"], ["claims", "Claims", "claims"], ["moves", "Moves", "moves"]]];

const ALL = [
  [null, [["", "Overview", "overview"], ["map", "Map", "map"]]],
  ["Federation", [["members", "Members", "members"], ["netids", "NetIDs", "netids"], ["policy", "Policy", "policy"]]],
  DEVICES,
  ["Zone transfers", [["sources", "Sources", "sources"], ["replicas", "Replicas", "replicas"], ["transfers", "History", "transfers"]]],
  ["Trust", [["certificates", "Certificates", "certificates"], ["ca", "Authority", "ca"], ["keys", "Keys and tokens", "keys"]]],
  ["Administration", [["people", "Administrators", "people"], ["audit", "Audit", "audit"], ["webhooks", "Webhooks", "webhooks"], ["settings", "Settings", "settings"]]],
];

const OWN = [
  [null, [["", "Overview", "overview"]]],
  ["Yours", [["netids", "NetIDs", "netids"], ["policy", "Who sees you", "policy"], ["certificates", "Certificates", "certificates"], ["sources", "Sources", "sources"], ["keys", "API tokens", "keys"], ["webhooks", "Webhooks", "webhooks"]]],
  DEVICES,
  ["This browser", [["settings", "Settings", "settings"]]],
];

export const menus = (who) => (who.member ? OWN : ALL);

/**
 * Pages by address. What stands behind a colon is any segment, which the page gets by that name. `changes`: of no use to who
 * only looks on. The tests visit every line.
 */
const COMMON = [
  { at: "netids", show: NetIds },
  { at: "netids/:netid", show: NetIdPage },
  { at: "devices", show: Devices },
  { at: "devices/:device", show: DevicePage },
  { at: "imports", show: Imports },
  { at: "claims", show: Claims },
  { at: "moves", show: Moves },
  { at: "policy", show: Policy },
  { at: "sources", show: Sources },
  { at: "sources/:source", show: SourcePage },
  { at: "certificates", show: Certificates },
  { at: "certificates/:serial", show: CertificatePage },
  { at: "webhooks", show: Webhooks },
  { at: "settings", show: Settings },
  { at: "search", show: Find },
];
const FULL = [
  { at: "", show: Overview },
  { at: "map", show: MapPage },
  { at: "members", show: Members },
  { at: "members/new", show: Enrol, changes: true },
  { at: "members/:member", show: MemberPage },
  { at: "netids/new", show: NetIdForm, changes: true },
  { at: "netids/:netid/edit", show: NetIdForm, changes: true },
  { at: "sources/new", show: SourceForm, changes: true },
  { at: "sources/:source/edit", show: SourceForm, changes: true },
  { at: "replicas", show: Replicas },
  { at: "transfers", show: Transfers },
  { at: "ca", show: Authority },
  { at: "keys", show: TsigKeys },
  { at: "keys/api", show: ApiTokens },
  { at: "keys/enrol", show: EnrolmentTokens },
  { at: "people", show: People },
  { at: "audit", show: Audit },
  ...COMMON,
];
const PART = [{ at: "", show: Own }, { at: "keys", show: ApiTokens }, ...COMMON];

export const pages = (who) => (who.member ? PART : FULL);

/** The page at an address, and what its segments are: `{page, given}`. */
export function find(who, parts) {
  for (const page of pages(who)) {
    const wanted = page.at.split("/").filter(Boolean);
    if (wanted.length !== parts.length || !wanted.every((word, place) => word.startsWith(":") || word === parts[place])) continue;
    const named = wanted.map((word, place) => [word, parts[place]]).filter(([word]) => word.startsWith(":"));
    return { page, given: Object.fromEntries(named.map(([word, part]) => [word.slice(1), part])) };
  }
  return {};
}

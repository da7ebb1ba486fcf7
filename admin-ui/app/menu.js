// Which pages there are, and for whom.
import { Overview } from "./pages/overview.js";
import { Own } from "./pages/own.js";
import { Members } from "./pages/members.js";
import { NetIds } from "./pages/netids.js";
import { Devices } from "./pages/devices.js";
import { Imports } from "./pages/imports.js";
import { Claims } from "./pages/claims.js";
import { Moves } from "./pages/moves.js";
import { Policy } from "./pages/policy.js";
import { MapPage } from "./pages/map.js";
import { Sources } from "./pages/sources.js";
import { Replicas } from "./pages/replicas.js";
import { Transfers } from "./pages/transfers.js";
import { Certificates } from "./pages/certificates.js";
import { Authority } from "./pages/ca.js";
import { Keys } from "./pages/keys.js";
import { People } from "./pages/people.js";
import { Audit } from "./pages/audit.js";
import { Settings } from "./pages/settings.js";
import { Find } from "./pages/find.js";

const DEVICES = ["Devices", [["devices", "Devices", "devices"], ["imports", "Imports", "imports"], ["claims", "Claims", "claims"], ["moves", "Moves", "moves"]]];

const ALL = [
  [null, [["", "Overview", "overview"], ["map", "Map", "map"]]],
  ["Federation", [["members", "Members", "members"], ["netids", "NetIDs", "netids"], ["policy", "Policy", "policy"]]],
  DEVICES,
  ["Zone transfers", [["sources", "Sources", "sources"], ["replicas", "Replicas", "replicas"], ["transfers", "History", "transfers"]]],
  ["Trust", [["certificates", "Certificates", "certificates"], ["ca", "Authority", "ca"], ["keys", "Keys and tokens", "keys"]]],
  ["Administration", [["people", "Administrators", "people"], ["audit", "Audit", "audit"], ["settings", "Settings", "settings"]]],
];

const OWN = [
  [null, [["", "Overview", "overview"]]],
  ["Yours", [["netids", "NetIDs", "netids"], ["policy", "Who sees you", "policy"], ["certificates", "Certificates", "certificates"], ["sources", "Sources", "sources"], ["keys", "API tokens", "keys"]]],
  DEVICES,
  ["This browser", [["settings", "Settings", "settings"]]],
];

export const menus = (who) => (who.member ? OWN : ALL);

const COMMON = { netids: NetIds, devices: Devices, imports: Imports, claims: Claims, moves: Moves, policy: Policy, sources: Sources, certificates: Certificates, keys: Keys, settings: Settings, search: Find };
const FULL = { ...COMMON, "": Overview, members: Members, map: MapPage, replicas: Replicas, transfers: Transfers, ca: Authority, people: People, audit: Audit };
const PART = { ...COMMON, "": Own };

export const pages = (who) => (who.member ? PART : FULL);

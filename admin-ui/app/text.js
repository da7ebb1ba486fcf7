// Numbers, times and DevEUIs as people read and write them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const some = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const dates = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const days = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const times = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export const count = (n) => whole.format(n ?? 0);
export const rate = (n) => (n >= 100 ? whole.format(n) : some.format(n ?? 0));
export const compact = (n) => (n < 10_000 ? whole.format(n) : short.format(n));
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const are = (n) => (n === 1 ? "is" : "are");
export const day = (at) => days.format(new Date(at));
export const moment = (at) => dates.format(new Date(at));
export const clock = (at) => times.format(new Date(at));

const UNITS = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

export function ago(at, now = Date.now()) {
  const seconds = Math.round((new Date(at) - now) / 1000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS[5];
  return relative.format(Math.trunc(seconds / size), unit);
}

export const daysLeft = (at) => (new Date(at) - Date.now()) / 86_400_000;

export function micros(us) {
  if (us == null) return "–";
  return us < 1000 ? `${some.format(us)} µs` : us < 1_000_000 ? `${some.format(us / 1000)} ms` : `${some.format(us / 1_000_000)} s`;
}

export function octets(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (n >= 1000 && place < units.length - 1) {
    n /= 1000;
    place += 1;
  }
  return `${some.format(n)} ${units[place]}`;
}

/**
 * A DevEUI in any form that people paste: 16 digits, with 0x, with one kind of separator, upper case, as a flat or as a
 * nibble name. `{eui}` for a whole one, `{prefix}` for its first digits, `{wrong}` with the reason.
 */
export function devEui(text) {
  const given = text.trim().toLowerCase().replace(/\.$/, "");
  if (!given) return { wrong: "is empty" };
  const labels = given.split(".");
  if (labels.length >= 16 && labels.slice(0, 16).every((label) => /^[0-9a-f]$/.test(label))) return { eui: labels.slice(0, 16).reverse().join("") };
  if (labels.length > 1 && /^[0-9a-f]{16}$/.test(labels[0])) return { eui: labels[0] };
  const digits = given.replace(/^0x/, "");
  const separators = new Set(digits.replace(/[0-9a-f]/g, ""));
  if (separators.size > 1) return { wrong: "mixes separators" };
  const plain = digits.replace(/[-:. _]/g, "");
  if (!/^[0-9a-f]+$/.test(plain)) return { wrong: "has characters other than 0–9 and a–f" };
  if (plain.length > 16) return { wrong: `has ${plain.length} digits: a DevEUI has 16` };
  if (plain.length < 16) return { prefix: plain };
  if (/^(0{16}|f{16})$/.test(plain)) return { wrong: "is no DevEUI: all zeros and all ones are reserved" };
  return { eui: plain };
}

/** As it is printed on devices: 70-b3-d5-a1-… reads better in pairs. */
export const pairs = (eui) => eui.match(/../g).join(" ");

export const host = (name) => String(name ?? "").replace(/\.$/, "");

// Everything the app says, in the language that was chosen; and times and numbers as people read them there.
//
// Rule: English is the list of what there is to say, every other language has all of it (the types see to that). What a
// node or the gateway says in sentences is translated by a table, and shown as it came where that has nothing.

import { Cell } from "../cell";
import { type Language, language } from "../settings";
import { en } from "./en";
import { type Sentences, sentences, translated } from "./said";

export type Key = keyof typeof en;
export type Words = Record<Key, string>;

/** Changes when another language has been loaded. */
export const words = new Cell<Words>(en);

let known: Sentences = [];

const LOADERS: Record<Language, () => Promise<{ spoken: Words; theirs: Sentences }>> = {
  en: async () => ({ spoken: en, theirs: [] }),
  zh: async () => {
    const [{ zh }, { default: table }] = await Promise.all([import("./zh"), import("./said.zh.json")]);
    return { spoken: zh, theirs: sentences(table) };
  },
};

/** Loads the chosen language, now and whenever another one is chosen. */
export async function learn(): Promise<void> {
  const load = async (): Promise<void> => {
    const wanted = language.value;
    const found = await LOADERS[wanted]();
    if (wanted !== language.value) return;
    known = found.theirs;
    words.set(found.spoken);
    document.documentElement.lang = wanted === "zh" ? "zh-CN" : "en";
  };
  language.follow(() => void load());
  await load();
}

/** What is said under this key, with `{name}` replaced. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  return words.value[key].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** The words for something that the gateway named, or its own name where we have none. */
export function named(prefix: string, name: string): string {
  const key = `${prefix}.${name}` as Key;
  return words.value[key] ?? name;
}

/** A sentence of a node or of the gateway. */
export const said = (text: string): string => translated(text, known);

/** For the browser's own words: of numbers, days and hours. */
export const locale = (): string => (language.value === "zh" ? "zh-CN" : "en-GB");

export const number = (value: number | null, digits = 1): string =>
  value === null ? "–" : value.toLocaleString(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** The hour, for today; day and hour else. */
export function when(ts: number | null, now = Date.now() / 1000): string {
  if (ts === null) return "–";
  const date = new Date(ts * 1000);
  const today = date.toDateString() === new Date(now * 1000).toDateString();
  const hour: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit" };
  return date.toLocaleString(locale(), today ? hour : { day: "numeric", month: "short", ...hour });
}

const SPANS: [number, Intl.RelativeTimeFormatUnit][] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

/** "5 minutes ago". */
export function ago(ts: number | null, now = Date.now() / 1000): string {
  if (ts === null) return "–";
  const past = Math.max(0, now - ts);
  const [seconds, unit] = SPANS.find(([span]) => past >= span) ?? [1, "second"];
  return new Intl.RelativeTimeFormat(locale(), { numeric: "auto" }).format(-Math.floor(past / seconds), unit);
}

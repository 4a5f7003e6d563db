// The fleet as it is now: read once, then kept current by the gateway's stream of events; lost connections come back.
//
// Rule: what is shown is either live or marked as old. `link` says which, and since when. Only this file reads the
// stream, and only this file sets these cells.

import { Problem, get, me, renew, request } from "./api";
import { wait } from "./backoff";
import { Cell } from "./cell";
import type { Ack, Alert, Device, Json, NodeEvent, Progress } from "./contract";
import { type Fleet, type Happening, applied, fleetOf, withAlert } from "./fleet";
import * as memory from "./memory";
import { Parser } from "./sse";

export interface Link {
  live: boolean;
  /** When what is shown was true, in Unix seconds; null if nothing is known yet. */
  asOf: number | null;
}

export const fleet = new Cell<Fleet>(new Map());
export const alerts = new Cell<readonly Alert[]>([]);
export const link = new Cell<Link>({ live: false, asOf: null });
export const acks = new Cell<Ack | null>(null);
export const progress = new Cell<Progress | null>(null);
export const nodeEvents = new Cell<(NodeEvent & { device: string }) | null>(null);

/** The gateway sends a comment every 15 s; after this long without a byte the connection is dead. */
const SILENCE_MS = 40_000;
/** Events within this time are drawn together. */
const DRAW_MS = 100;
const SAVE_MS = 5_000;
const now = (): number => Date.now() / 1000;

let running: AbortController | undefined;
let hurry: () => void = () => undefined;
let pending: Happening[] = [];
let drawing: ReturnType<typeof setTimeout> | undefined;

/** Begins when somebody has signed in, and ends when nobody is. */
export function follow(): void {
  me.follow(() => (me.value ? start() : stop()));
  if (me.value) start();
  addEventListener("online", () => hurry());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") hurry();
    else save();
  });
  setInterval(() => link.value.live && save(), SAVE_MS);
}

function start(): void {
  if (running) return;
  const last = memory.recall(me.value?.name ?? "");
  if (last) {
    fleet.set(fleetOf(last.devices));
    alerts.set(last.alerts);
    link.set({ live: false, asOf: last.ts });
  }
  running = new AbortController();
  void keepGoing(running.signal);
}

function stop(): void {
  running?.abort();
  running = undefined;
  pending = [];
  fleet.set(new Map());
  alerts.set([]);
  link.set({ live: false, asOf: null });
}

function save(): void {
  if (me.value && link.value.live) memory.keep(me.value.name, [...fleet.value.values()], alerts.value);
}

async function keepGoing(signal: AbortSignal): Promise<void> {
  for (let attempt = 0; !signal.aborted; attempt += 1) {
    try {
      await once(signal, () => (attempt = 0));
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
    }
    if (signal.aborted) return;
    draw();
    if (link.value.live) {
      save();
      link.set({ live: false, asOf: now() });
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, wait(attempt, Math.random()) * 1000);
      hurry = () => (clearTimeout(timer), resolve());
    });
    hurry = () => undefined;
  }
}

/** One connection, until it ends. `good` is called when it is there. */
async function once(outer: AbortSignal, good: () => void): Promise<void> {
  const inner = new AbortController();
  const end = (): void => inner.abort();
  outer.addEventListener("abort", end, { once: true });
  let watchdog = setTimeout(end, SILENCE_MS);
  try {
    const stream = await request("GET", "/events", undefined, { signal: inner.signal });
    pending = [];
    await read(inner.signal);
    good();
    link.set({ live: true, asOf: now() });
    const reader = stream.body!.getReader();
    const parser = new Parser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(end, SILENCE_MS);
      for (const { event, data } of parser.feed(value)) {
        if (event === "expired") return void (await renew().then(() => hurrySoon()));
        if (event === "resync") await read(inner.signal);
        else take({ event, data: JSON.parse(data) as Json });
      }
    }
  } finally {
    clearTimeout(watchdog);
    outer.removeEventListener("abort", end);
    inner.abort();
  }
}

/** A token that ended in order is no reason to wait. */
function hurrySoon(): void {
  setTimeout(() => hurry(), 0);
}

/** Everything, as it is now. */
export async function read(signal?: AbortSignal): Promise<void> {
  const more = signal ? { signal } : {};
  const devices: Device[] = [];
  for (let after: string | null = ""; after !== null; ) {
    const page: { devices: Device[]; next: string | null } = await get(
      `/devices?limit=1000${after ? `&after=${encodeURIComponent(after)}` : ""}`,
      more,
    );
    devices.push(...page.devices);
    after = page.next;
  }
  fleet.set(fleetOf(devices));
  try {
    const open = await Promise.all(
      ["raised", "acknowledged"].map((state) => get<{ alerts: Alert[] }>(`/alerts?state=${state}&limit=1000`, more)),
    );
    alerts.set(open.flatMap((page) => page.alerts).sort((a, b) => b.raised - a.raised));
  } catch (error) {
    // A share sees no alerts, and a gateway without history has none.
    if (!(error instanceof Problem) || error.status === 0 || error.status === 401) throw error;
  }
}

function take(happening: Happening): void {
  const { event, data } = happening;
  if (event === "alert") alerts.set(withAlert(alerts.value, data as unknown as Alert));
  else if (event === "ack") acks.set(data as unknown as Ack);
  else if (event === "group") progress.set(data as unknown as Progress);
  else if (event === "event") nodeEvents.set(data as unknown as NodeEvent & { device: string });
  else {
    pending.push(happening);
    drawing ??= setTimeout(draw, DRAW_MS);
  }
}

function draw(): void {
  clearTimeout(drawing);
  drawing = undefined;
  fleet.set(applied(fleet.value, pending));
  pending = [];
  if (link.value.live) link.set({ live: true, asOf: now() });
}

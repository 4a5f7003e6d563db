// What the app knows of the fleet, and what a message of the gateway makes of it; what is wrong comes first.
//
// Rule: pure. A fleet is a value; `applied` gives the next one and leaves the old as it was. The gateway hands on what nodes
// say as they say it: readings of another shape than they should have stay out here, of `state` each use looks for itself.

import type { Alert, Device, Json, Presence, Reading } from "./contract";

export type Fleet = ReadonlyMap<string, Device>;

export const fleetOf = (devices: readonly Device[]): Fleet =>
  new Map(devices.map((device) => [device.name, { ...device, readings: device.readings && readings(device.readings) }]));

const texts = (said: unknown): string[] =>
  Array.isArray(said) ? said.filter((one): one is string => typeof one === "string") : [];

/** What of a node's readings is one. */
function readings(said: unknown): Record<string, Reading> {
  const found = Object.entries((said ?? {}) as Json).filter(([, one]) => {
    if (!Array.isArray(one)) return false;
    const [value, quality] = one as unknown[];
    return (value === null || numeric(value) !== null) && typeof quality === "string";
  });
  return Object.fromEntries(found) as Record<string, Reading>;
}

/** One event of `GET /events`. */
export interface Happening {
  event: string;
  data: Json;
}

/** The fleet after these events, in order; the same one if they change nothing. */
export function applied(fleet: Fleet, happenings: readonly Happening[]): Fleet {
  let next: Map<string, Device> | undefined;
  for (const { event, data } of happenings) {
    const device = (next ?? fleet).get(String(data["device"]));
    const change = device && changed(event, data);
    if (device && change) (next ??= new Map(fleet)).set(device.name, { ...device, ...change });
  }
  return next ?? fleet;
}

function changed(event: string, data: Json): Partial<Device> | undefined {
  const ts = typeof data["ts"] === "number" ? data["ts"] : null;
  switch (event) {
    case "presence":
      return {
        presence: data["presence"] as Presence,
        presence_why: (data["why"] as string | null | undefined) ?? null,
        presence_ts: ts,
      };
    case "state": {
      const state = data["state"] as Json;
      const faults = Array.isArray(state["faults"]) ? { faults: texts(state["faults"]) } : {};
      return { state, state_ts: ts, ...faults };
    }
    case "readings":
      return {
        readings: readings(data["readings"]),
        readings_ts: ts,
        codes: texts(data["codes"]),
      };
    default:
      return undefined;
  }
}

/** How bad it is: the higher, the further on top. */
export const Grade = { Fine: 0, Quiet: 1, Away: 2, Warned: 3, Wrong: 4 } as const;

/** What is to be said of a device first. */
export interface Finding {
  grade: number;
  what: "fine" | "unknown" | "sleeping" | "offline" | "alert" | "fault";
  detail: string;
}

export function finding(device: Device, alerts: readonly Alert[]): Finding {
  const raised = alerts.filter((alert) => alert.device === device.name && alert.state !== "cleared");
  const critical = raised.find((alert) => alert.severity === "critical" && alert.state === "raised");
  const fault = device.faults[0];
  if (critical) return { grade: Grade.Wrong, what: "alert", detail: critical.text };
  if (fault !== undefined) return { grade: Grade.Wrong, what: "fault", detail: fault };
  const other = raised[0];
  if (device.presence === "offline") return { grade: Grade.Away, what: "offline", detail: device.presence_why ?? "" };
  if (other) return { grade: Grade.Warned, what: "alert", detail: other.text };
  if (device.presence === "unknown") return { grade: Grade.Quiet, what: "unknown", detail: "" };
  if (device.presence === "sleeping") return { grade: Grade.Quiet, what: "sleeping", detail: "" };
  return { grade: Grade.Fine, what: "fine", detail: "" };
}

/** What is wrong on top, then by name. */
export function ranked(fleet: Fleet, alerts: readonly Alert[]): { device: Device; finding: Finding }[] {
  return [...fleet.values()]
    .map((device) => ({ device, finding: finding(device, alerts) }))
    .sort((a, b) => b.finding.grade - a.finding.grade || a.device.name.localeCompare(b.device.name, "en", { numeric: true }));
}

/** The temperature that counts now: as measured, if the measurement is good, else as the node has it. */
export function temperature(device: Device): number | null {
  const reading = device.readings?.["temperature"];
  if (reading && reading[1] === "ok" && typeof reading[0] === "number") return reading[0];
  return numeric(device.state?.["temperature"]);
}

export const setpoint = (device: Device): number | null => numeric(device.state?.["setpoint"]);

export function numeric(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** Alerts after one of them has changed: newest first, each once. */
export function withAlert(alerts: readonly Alert[], alert: Alert): Alert[] {
  return [alert, ...alerts.filter((other) => other.id !== alert.id)].sort((a, b) => b.raised - a.raised);
}

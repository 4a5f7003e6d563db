// The last known state, kept in the browser so that the app has something to show where the gateway cannot be reached.
//
// Rule: it belongs to one user, carries its time, and is gone when he signs out. A full or missing store is no error.

import type { Alert, Device } from "./contract";

export interface Last {
  ts: number;
  devices: Device[];
  alerts: Alert[];
}

const key = (user: string): string => `peanut.last.${user}`;

export function keep(user: string, devices: readonly Device[], alerts: readonly Alert[]): void {
  try {
    localStorage.setItem(key(user), JSON.stringify({ ts: Date.now() / 1000, devices, alerts }));
  } catch {
    localStorage.removeItem(key(user));
  }
}

export function recall(user: string): Last | null {
  try {
    return JSON.parse(localStorage.getItem(key(user)) ?? "null") as Last | null;
  } catch {
    return null;
  }
}

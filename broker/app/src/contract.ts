// What the gateway's API says, as types: broker/peanutd/api/README.md in TypeScript.
//
// Rule: nothing here but shapes. Times are Unix seconds. Fields that the app does not use are left out.

export type Role = "viewer" | "operator" | "admin";
export type Presence = "online" | "offline" | "sleeping" | "unknown";
export type Kind = "greenhouse" | "vehicle";
export type Json = Record<string, unknown>;

export interface Session {
  access_token: string;
  expires_in: number;
  user: { name: string; role: Role };
}

export interface Me {
  name: string;
  role: Role;
  scope: string[] | null;
  share: Share | null;
  passkeys: number;
}

/** Value as measured, its quality (`ok` or what is wrong), its age in seconds. */
export type Reading = [number | null, string, number];

export interface Device {
  name: string;
  kind: Kind;
  root: string;
  presence: Presence;
  presence_why: string | null;
  presence_ts: number | null;
  fw: string | null;
  sim: boolean;
  groups: string[];
  state: Json | null;
  state_ts: number | null;
  readings: Record<string, Reading> | null;
  readings_ts: number | null;
  faults: string[];
  /** A vehicle's fault codes, `P0420` and the like. */
  codes: string[];
  commands: string[];
  step_up: string[];
  health?: Json | null;
  config?: Json | null;
  ota?: Json | null;
}

export interface Outcome {
  id: string;
  device: string;
  command: string;
  outcome: "done" | "rejected" | "not_answered";
  accepted: boolean;
  why: string | null;
  state: Json | null;
  sent: number;
  answered: number | null;
  detail?: string;
}

export interface Ack {
  device: string;
  id?: string;
  cmd: string;
  stage: "accepted" | "done" | "rejected";
  why?: string;
}

export interface Alert {
  id: number;
  rule: string;
  device: string;
  severity: "warning" | "critical";
  state: "raised" | "acknowledged" | "cleared";
  text: string;
  value: number | null;
  raised: number;
  acknowledged: { by: string; ts: number; note: string } | null;
  cleared: number | null;
}

/** Time, mean, least, most, how many. */
export type Point = [number, number, number, number, number];

export interface Series {
  device: string;
  quantity: string;
  unit: string;
  step_s: number;
  points: Point[];
}

export interface NodeEvent {
  seq: number;
  ts: number;
  id: string;
  text: string;
  clear: boolean;
}

export type Desired = ({ setpoint: number } | { recipe: string }) & { by?: string; ts?: number };

export interface Progress {
  group: string;
  desired: Desired;
  members: number;
  at: number;
  pending: number;
  offline: number;
  refused: number;
  devices: { device: string; state: "at" | "pending" | "offline" | "refused"; why: string | null }[];
}

export interface Group {
  name: string;
  title: string;
  members: string[];
  desired: Desired | null;
}

export interface Season {
  from: string;
  curve: { at: string; setpoint: number }[];
}

export interface Recipe {
  name: string;
  title: string;
  seasons: Season[];
}

export interface User {
  name: string;
  role: Role;
  created: number;
  scope: string[] | null;
}

export interface SignIn {
  id: string;
  user: string;
  created: number;
  used: number;
  address: string;
  agent: string;
  current: boolean;
}

export interface Share {
  id: number;
  device: string;
  commands: string[];
  from: number;
  until: number;
  note: string;
  by: string;
  created: number;
  revoked: number | null;
  secret?: string;
  pin?: string;
}

export interface Entry {
  seq: number;
  ts: number;
  who: string;
  address: string;
  action: string;
  target: string;
  outcome: string;
  why: string | null;
}

export interface Certificate {
  device: string;
  serial: string | null;
  not_after: number | null;
  last: number | null;
  chip: string | null;
  revoked: { since: number; why: string } | null;
}

// The way to the gateway: requests with the access token, renewed when it is old; errors as the gateway words them.
//
// Rule: the access token lives in memory only, and the refresh token in a cookie that no script can read. One renewal
// at a time over all windows of this browser, since a refresh token that comes twice ends the sign-in.

import type { Me, Role, Session } from "./contract";
import { Cell } from "./cell";

export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly body: Record<string, unknown>;
  readonly retryAfter: number;

  constructor(status: number, code: string, detail: string, body: Record<string, unknown> = {}, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.code = code;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/** Who is signed in; undefined while that is being found out, null when nobody is. */
export const me = new Cell<Me | null | undefined>(undefined);

const BASE = "/api/v1";
const NO_CONNECTION = 0;
const WHO = "peanut.who";
/** Somebody has signed out, and the gateway does not know it yet. */
const LEFT = "peanut.left";

let token = "";
let renewing: Promise<boolean> | undefined;

async function send(method: string, path: string, body?: unknown, more: RequestInit = {}): Promise<Response> {
  const headers = new Headers(more.headers);
  if (body !== undefined) headers.set("Content-Type", "application/json");
  if (token) headers.set("Authorization", `Bearer ${token}`);
  try {
    return await fetch(BASE + path, {
      ...more,
      method,
      headers,
      credentials: "same-origin",
      cache: "no-store",
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(NO_CONNECTION, "no_connection", "");
  }
}

async function problem(response: Response): Promise<Problem> {
  let body: Record<string, unknown> = {};
  try {
    body = (await response.json()) as Record<string, unknown>;
  } catch {
    // Not from the gateway's API: a proxy's page, say.
  }
  const detail = String(body["detail"] ?? body["title"] ?? response.statusText);
  const wait = Number(response.headers.get("Retry-After") ?? 0) || 0;
  return new Problem(response.status, String(body["code"] ?? ""), detail, body, wait);
}

/** A request whose answer is not read yet; renews the access token once when it is old. */
export async function request(method: string, path: string, body?: unknown, more?: RequestInit): Promise<Response> {
  let response = await send(method, path, body, more);
  if (response.status === 401 && me.value && (await renew())) response = await send(method, path, body, more);
  if (!response.ok) {
    const found = await problem(response);
    if (found.status === 401 && me.value) signedOut();
    throw found;
  }
  return response;
}

/** A request and its answer; `undefined` where there is none. */
export async function call<T>(method: string, path: string, body?: unknown, more?: RequestInit): Promise<T> {
  const response = await request(method, path, body, more);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

export const get = <T>(path: string, more?: RequestInit): Promise<T> => call<T>("GET", path, undefined, more);

function take(session: Session): void {
  token = session.access_token;
}

async function whoAmI(): Promise<void> {
  const found = await get<Me>("/me");
  localStorage.setItem(WHO, JSON.stringify(found));
  me.set(found);
}

export async function signIn(user: string, password: string): Promise<void> {
  token = "";
  const response = await send("POST", "/session", { user, password, cookie: true });
  if (!response.ok) throw await problem(response);
  take((await response.json()) as Session);
  localStorage.removeItem(LEFT);
  await whoAmI();
}

export async function openShare(secret: string): Promise<void> {
  token = "";
  const response = await send("POST", "/share-session", { secret });
  if (!response.ok) throw await problem(response);
  take((await response.json()) as Session);
  await whoAmI();
}

/** Takes a new access token by the cookie. False when the sign-in is over; throws when there is no connection. */
export function renew(): Promise<boolean> {
  renewing ??= locked(async () => {
    // `keepalive`: an answer that this page does not live to see still brings the browser its new cookie.
    const headers = { "X-Peanut": "1" };
    const response = await send("POST", "/session/refresh", {}, { headers, keepalive: true });
    if (response.ok) take((await response.json()) as Session);
    else if (response.status !== 401 && response.status !== 403) throw await problem(response);
    return response.ok;
  }).finally(() => (renewing = undefined));
  return renewing;
}

async function locked<T>(work: () => Promise<T>): Promise<T> {
  return navigator.locks ? ((await navigator.locks.request("peanut.renew", work)) as T) : work();
}

/** At the start: is somebody still signed in? Without a connection, whoever was the last one, to see what was. */
export async function comeBack(): Promise<void> {
  if (localStorage.getItem(LEFT)) return leave();
  try {
    if (await renew()) await whoAmI();
    else signedOut();
  } catch {
    const last = localStorage.getItem(WHO);
    me.set(last ? (JSON.parse(last) as Me) : null);
  }
}

/** What is to happen before somebody signs out, as long as the gateway still listens to him. */
export const farewells: (() => Promise<void>)[] = [];

export async function signOut(): Promise<void> {
  await Promise.allSettled(farewells.map((farewell) => farewell()));
  localStorage.setItem(LEFT, "1");
  await leave();
}

/** Without a connection the cookie stays, and no script can take it away: the gateway is told the next time. */
async function leave(): Promise<void> {
  try {
    if (token || (await renew())) await call("DELETE", "/session");
    localStorage.removeItem(LEFT);
  } catch (error) {
    // That it is over already is as good.
    if (error instanceof Problem && error.status === 401) localStorage.removeItem(LEFT);
  }
  signedOut();
}

function signedOut(): void {
  token = "";
  for (const key of Object.keys(localStorage)) if (key.startsWith("peanut.last.")) localStorage.removeItem(key);
  localStorage.removeItem(WHO);
  me.set(null);
}

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether whoever is signed in has at least this role. A share has none. */
export function may(role: Role): boolean {
  const who = me.value;
  return who != null && who.share === null && RANK[who.role] >= RANK[role];
}

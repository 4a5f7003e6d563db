// Notices on the phone: the browser's subscription, told to the gateway.
//
// Rule: nothing is asked of the person before he wants it. They are his who is signed in, and end when he signs out: a
// phone that somebody else signs in on does not go on telling him what the first one wanted to know. Without a trusted
// page there is no service worker, and so there are no notices; `noticesPossible` says so.

import { call, farewells, get, me } from "./api";
import { bytes } from "./passkey";

const KEPT = "peanut.push";

/** What the gateway knows this browser by, and whose it is. */
interface Kept {
  id: string;
  user: string;
}

export const noticesPossible = (): boolean =>
  isSecureContext && "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis;

async function worker(): Promise<ServiceWorkerRegistration | undefined> {
  return noticesPossible() ? navigator.serviceWorker.getRegistration() : undefined;
}

function kept(): Kept | null {
  try {
    return JSON.parse(localStorage.getItem(KEPT) ?? "null") as Kept | null;
  } catch {
    return null;
  }
}

/** Whether this phone has them. */
export async function notices(): Promise<boolean> {
  return (await (await worker())?.pushManager.getSubscription()) != null && kept() !== null;
}

export async function wantNotices(wanted: boolean): Promise<void> {
  const found = await worker();
  if (!found) throw new Error("no service worker");
  const old = await found.pushManager.getSubscription();
  if (!wanted) return end(old);
  const { key } = await get<{ key: string }>("/push/key");
  await tell(old ?? (await found.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: bytes(key) })));
}

async function tell(subscription: PushSubscription): Promise<void> {
  const { id } = await call<{ id: string }>("POST", "/push/subscriptions", subscription.toJSON());
  localStorage.setItem(KEPT, JSON.stringify({ id: String(id), user: me.value?.name ?? "" } satisfies Kept));
}

async function end(subscription: PushSubscription | null): Promise<void> {
  const known = kept();
  localStorage.removeItem(KEPT);
  await subscription?.unsubscribe();
  if (known?.user === me.value?.name) await call("DELETE", `/push/subscriptions/${encodeURIComponent(known!.id)}`);
}

/** Whoever has come in goes on with his notices, under an address that may be new; those of somebody else end. */
async function goOn(): Promise<void> {
  const known = kept();
  const subscription = known && (await (await worker())?.pushManager.getSubscription());
  if (known && subscription) await (known.user === me.value?.name ? tell(subscription) : end(subscription));
}

/** Once, at the start: sees to the notices whenever somebody comes or goes. */
export function followNotices(): void {
  farewells.push(async () => {
    if (kept()) await wantNotices(false);
  });
  me.follow(() => {
    if (me.value && me.value.share === null) goOn().catch(() => undefined); // without a connection: next time
  });
}

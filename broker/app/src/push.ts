// Notices on the phone: the browser's subscription, told to the gateway.
//
// Rule: nothing is asked of the person before he wants it. Without a trusted page there is no service worker, and so
// there are no notices; `noticesPossible` says so.

import { call, get } from "./api";
import { bytes } from "./passkey";

const KEPT = "peanut.push";

export const noticesPossible = (): boolean =>
  isSecureContext && "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis;

async function worker(): Promise<ServiceWorkerRegistration | undefined> {
  return noticesPossible() ? navigator.serviceWorker.getRegistration() : undefined;
}

/** Whether this phone has them. */
export async function notices(): Promise<boolean> {
  return (await (await worker())?.pushManager.getSubscription()) != null && localStorage.getItem(KEPT) !== null;
}

export async function wantNotices(wanted: boolean): Promise<void> {
  const found = await worker();
  if (!found) throw new Error("no service worker");
  const old = await found.pushManager.getSubscription();
  if (!wanted) {
    const id = localStorage.getItem(KEPT);
    localStorage.removeItem(KEPT);
    await old?.unsubscribe();
    if (id) await call("DELETE", `/push/subscriptions/${encodeURIComponent(id)}`);
    return;
  }
  const { key } = await get<{ key: string }>("/push/key");
  const made = old ?? (await found.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: bytes(key) }));
  const { id } = await call<{ id: string }>("POST", "/push/subscriptions", made.toJSON());
  localStorage.setItem(KEPT, String(id));
}

// The service worker: keeps the app's shell for when the gateway cannot be reached, and shows what is pushed.
//
// Rule: only the app's own files are kept, never an answer of the API; what was true last is the page's business, which
// marks it as old. A new build replaces the old shell as a whole.

export type {};

declare const self: {
  addEventListener(type: string, listener: (event: never) => void): void;
  skipWaiting(): Promise<void>;
  clients: {
    claim(): Promise<void>;
    matchAll(options: object): Promise<{ url: string; focus(): Promise<unknown>; navigate(url: string): Promise<unknown> }[]>;
    openWindow(url: string): Promise<unknown>;
  };
  registration: { scope: string; showNotification(title: string, options: object): Promise<void> };
};

interface Extended {
  waitUntil(work: Promise<unknown>): void;
}
interface Fetched extends Extended {
  request: Request;
  respondWith(answer: Promise<Response>): void;
}
interface Pushed extends Extended {
  data: { json(): unknown; text(): string } | null;
}
interface Tapped extends Extended {
  notification: { close(): void; data: unknown };
}

/** Filled in by vite.config.ts. */
const SHELL = JSON.parse("__SHELL__") as { version: string; files: string[] };
const NAME = `peanut-${SHELL.version}`;

self.addEventListener("install", (event: Extended) => {
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(SHELL.files)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event: Extended) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((name) => name !== NAME).map((name) => caches.delete(name))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event: Fetched) => {
  const { request } = event;
  const url = new URL(request.url);
  const root = new URL(self.registration.scope);
  if (request.method !== "GET" || url.origin !== root.origin) return;
  const path = url.pathname.slice(root.pathname.length);
  if (request.mode === "navigate" && path === "") {
    // The page as the gateway has it; without the gateway, the one that is kept.
    event.respondWith(fetch(request).catch(async () => (await caches.match("./")) ?? Response.error()));
  } else if (path.startsWith("assets/") || SHELL.files.includes(path)) {
    event.respondWith(caches.match(request).then((kept) => kept ?? fetch(request)));
  }
});

self.addEventListener("push", (event: Pushed) => {
  let told: { title?: string; body?: string; alerts?: number[] };
  try {
    told = (event.data?.json() ?? {}) as typeof told;
  } catch {
    told = { body: event.data?.text() ?? "" };
  }
  const { title, body, alerts } = told;
  event.waitUntil(self.registration.showNotification(title ?? "Peanut", {
    body: body ?? "",
    icon: "icon-192.png",
    // What comes a second time takes the place of the first.
    ...(alerts?.length ? { tag: alerts.join() } : {}),
    data: "#/alerts",
  }));
});

self.addEventListener("notificationclick", (event: Tapped) => {
  event.notification.close();
  const url = self.registration.scope + String(event.notification.data ?? "");
  event.waitUntil(self.clients.matchAll({ type: "window" }).then(async ([open]) => {
    if (!open) return self.clients.openWindow(url);
    await open.focus();
    return open.navigate(url);
  }));
});

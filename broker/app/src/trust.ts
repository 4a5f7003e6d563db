// Whether this browser trusts the gateway: not what somebody believes, but what the browser lets the page do.
//
// Rule: a browser that was told to go on in spite of a warning still refuses a service worker; so that is what is tried.

export type Trust = "local" | "trusted" | "warned" | "plain";

export async function check(): Promise<Trust> {
  if (location.protocol === "http:") return isSecureContext ? "local" : "plain";
  if (!("serviceWorker" in navigator)) return "warned";
  try {
    await navigator.serviceWorker.register("./sw.js");
    return "trusted";
  } catch {
    return "warned";
  }
}

/** SHA-256 over the certificate in a PEM file, as `openssl x509 -fingerprint -sha256` prints it. */
export async function fingerprint(pem: string): Promise<string> {
  const body = /-----BEGIN CERTIFICATE-----([\s\S]+?)-----END/.exec(pem)?.[1];
  if (!body) throw new Error("no certificate");
  const der = Uint8Array.from(atob(body.replace(/\s/g, "")), (char) => char.charCodeAt(0));
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", der));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join(":");
}

// Passkeys (WebAuthn): made once on this phone, then a second proof without a password.
//
// Rule: the browser's own JSON forms, where it has them; bytes cross to the gateway as base64url.

import { call } from "./api";

export const bytes = (text: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));

export const base64url = (data: ArrayBuffer): string =>
  btoa(String.fromCharCode(...new Uint8Array(data))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

export const passkeysWork = (): boolean => "PublicKeyCredential" in globalThis && "credentials" in navigator;

interface Described {
  id: string;
  type: "public-key";
}

const known = (list: Described[] | undefined) => (list ?? []).map(({ id, type }) => ({ id: bytes(id), type }));

/** The answer to a challenge for this command. */
export async function passkeyProof(device: string, command: string): Promise<unknown> {
  const { publicKey } = await call<{ publicKey: Record<string, unknown> }>("POST", "/step-up/passkey", { device, command });
  const found = (await navigator.credentials.get({
    publicKey: {
      ...publicKey,
      challenge: bytes(String(publicKey["challenge"])),
      allowCredentials: known(publicKey["allowCredentials"] as Described[] | undefined),
    },
  })) as PublicKeyCredential;
  const response = found.response as AuthenticatorAssertionResponse;
  return {
    id: found.id, rawId: base64url(found.rawId), type: found.type,
    response: {
      clientDataJSON: base64url(response.clientDataJSON),
      authenticatorData: base64url(response.authenticatorData),
      signature: base64url(response.signature),
      userHandle: response.userHandle ? base64url(response.userHandle) : null,
    },
  };
}

/** Makes one on this phone and tells the gateway. */
export async function makePasskey(password: string, name: string): Promise<void> {
  const { publicKey } = await call<{ publicKey: Record<string, unknown> }>("POST", "/passkeys/options", { password });
  const user = publicKey["user"] as { id: string; name: string; displayName: string };
  const made = (await navigator.credentials.create({
    publicKey: {
      ...(publicKey as unknown as PublicKeyCredentialCreationOptions),
      challenge: bytes(String(publicKey["challenge"])),
      user: { ...user, id: bytes(user.id) },
      excludeCredentials: known(publicKey["excludeCredentials"] as Described[] | undefined),
    },
  })) as PublicKeyCredential;
  const response = made.response as AuthenticatorAttestationResponse;
  await call("POST", "/passkeys", {
    name,
    credential: {
      id: made.id, rawId: base64url(made.rawId), type: made.type,
      response: { clientDataJSON: base64url(response.clientDataJSON), attestationObject: base64url(response.attestationObject) },
    },
  });
}

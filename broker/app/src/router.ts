// Where in the app one is: the part of the address behind `#/`, cut at its slashes.
//
// Rule: every page has an address that can be sent to somebody else and that survives a reload.

import { Cell } from "./cell";

/** What a part of an address says; one that was cut or spoilt on its way says nothing of the app's. */
function said(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const read = (): string[] => location.hash.replace(/^#\/?/, "").split("?")[0]!.split("/").filter(Boolean).map(said);

export const route = new Cell<readonly string[]>(read());

addEventListener("hashchange", () => {
  route.set(read());
  scrollTo(0, 0);
});

/** The address of a page. */
export const to = (...parts: string[]): string => `#/${parts.map(encodeURIComponent).join("/")}`;

export function go(...parts: string[]): void {
  location.hash = to(...parts);
}

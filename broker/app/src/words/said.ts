// Sentences of the nodes and of the gateway, which both speak English only, in another language.
//
// Rule: pure. A sentence that the table does not know is shown as it came. The table is in its speakers' own notation, by
// which tests/app/test_said.py sees that none of their sentences is missing.

/** `"%s waits for %s"`, and what to say: `"{1}等待{2}"`. `%s` is any words, which are looked up too; `%g` is a number. */
export type Sentences = readonly (readonly [pattern: RegExp, words: string])[];

export function sentences(table: Record<string, string>): Sentences {
  return Object.entries(table).map(([theirs, ours]) => {
    const pattern = theirs.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/%g/g, "(-?\\d[\\d.e+]*)").replace(/%s/g, "(.*?)");
    return [new RegExp(`^${pattern}$`), ours] as const;
  });
}

/** Sentences within one another, at the most. */
const DEPTH = 4;

export function translated(text: string, known: Sentences, depth = DEPTH): string {
  if (!depth || !known.length) return text;
  const again = (part: string): string => translated(part, known, depth - 1);
  if (text.includes("; ")) return text.split("; ").map(again).join("；");
  for (const [pattern, ours] of known) {
    const found = pattern.exec(text);
    if (found) return ours.replace(/\{(\d)\}/g, (_whole, n: string) => again(found[Number(n)] ?? ""));
  }
  return text;
}

/** A greenhouse's reason without the figures that stand beside it on the page, and are newer there. */
export const plain = (reason: string): string => reason.replace(/^([a-z ]+): -?[\d.]+, [a-z ]+ -?[\d.]+(?=;|$)/, "$1");

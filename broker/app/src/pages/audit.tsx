// The audit log: who did what, when, from where, and what came of it; and whether it is still whole.
//
// Rule: shown as the gateway has it. The chain of hashes is checked by the gateway, which holds the log.

import { useState } from "preact/hooks";

import { get } from "../api";
import type { Entry } from "../contract";
import { to } from "../router";
import { named, t, when } from "../words";
import { Card, Fetched, Head, Pill, useLoad } from "../ui/parts";

/** What is on its way is neither well nor wrong yet. */
const TONES: Record<string, "fine" | "quiet"> = { done: "fine", ok: "fine", made: "fine", changed: "fine", removed: "fine", sent: "quiet" };

export function Audit() {
  const [entries, setEntries] = useState<Entry[]>([]);
  const [before, setBefore] = useState<number | null>(null);
  const page = useLoad(async (signal) => {
    const found = await get<{ entries: Entry[]; next: number | null }>(`/audit?limit=50${before ? `&before=${before}` : ""}`, { signal });
    setEntries((old) => [...(before ? old : []), ...found.entries]);
    return found;
  }, [before]);
  const check = useLoad((signal) => get<{ whole: boolean; entries: number }>("/audit/check", { signal }), []);
  return (
    <>
      <Head title={t("audit")} back={{ href: to("more"), label: t("more") }}>
        {check.value && <Pill tone={check.value.whole ? "fine" : "wrong"}>{t(check.value.whole ? "audit.whole" : "audit.broken")}</Pill>}
      </Head>
      <Card>
        <Fetched from={page}>
          {({ next }) => (
            <>
              <ul class="list">
                {entries.map((entry) => (
                  <li key={entry.seq}>
                    <span class="grow">
                      {named("command", entry.action)} {entry.target}
                      <small class="soft"><br />{entry.who} · {entry.address} · {when(entry.ts)}{entry.why && ` · ${entry.why}`}</small>
                    </span>
                    <Pill tone={TONES[entry.outcome] ?? "warned"}>{named("outcome", entry.outcome)}</Pill>
                  </li>
                ))}
              </ul>
              {next !== null && <button class="wide" onClick={() => setBefore(next)}>{t("further")}</button>}
            </>
          )}
        </Fetched>
      </Card>
    </>
  );
}

// Certificates: how long each node's is good for, and how one is taken back.
//
// Rule: days are what the node says of its own certificate. Only the machine that holds the fleet home revokes, so this
// page says the command; the gateway minds it within a second.

import { useState } from "preact/hooks";

import { get } from "../api";
import { useCell } from "../cell";
import type { Device } from "../contract";
import { fleet } from "../live";
import { to } from "../router";
import { named, number, t } from "../words";
import { Card, Fetched, Head, Pill, Sheet, useLoad } from "../ui/parts";

/** Days from which a certificate is worth a look. */
const SOON = 30;
/** Asked at once, so that a large fleet does not ask for everything. */
const SHOWN = 50;

interface Row {
  device: Device;
  days: number | null;
}

async function rows(names: readonly string[], signal: AbortSignal): Promise<Row[]> {
  const devices = await Promise.all(names.slice(0, SHOWN).map((name) => get<Device>(`/devices/${encodeURIComponent(name)}`, { signal })));
  return devices
    .map((device) => ({ device, days: typeof device.health?.["cert_days"] === "number" ? device.health["cert_days"] : null }))
    .sort((a, b) => (a.days ?? Infinity) - (b.days ?? Infinity));
}

export function Certificates() {
  const names = [...useCell(fleet).keys()].sort();
  const found = useLoad((signal) => rows(names, signal), [names.join()]);
  const [revoking, setRevoking] = useState<string | null>(null);
  return (
    <>
      <Head title={t("certificates")} back={{ href: to("more"), label: t("more") }} under={t("certificates.text")}>
        <a class="button little" href="/ca.crt" download>{t("certificates.ca")}</a>
      </Head>
      <Card>
        <Fetched from={found} empty={(list) => list.length === 0 && t("fleet.none")}>
          {(list) => (
            <ul class="list">
              {list.map(({ device, days }) => (
                <li key={device.name}>
                  <span class="grow"><a href={to("device", device.name)}>{device.name}</a><small class="soft"> {named("presence", device.presence)}</small></span>
                  <Pill tone={days === null ? "quiet" : days <= 0 ? "wrong" : days < SOON ? "warned" : "fine"}>
                    {days === null ? t("unknown") : t("days", { n: number(days, 0) })}
                  </Pill>
                  <button class="little danger" onClick={() => setRevoking(device.name)}>{t("certificates.revoke")}</button>
                </li>
              ))}
            </ul>
          )}
        </Fetched>
      </Card>
      {revoking && (
        <Sheet title={t("certificates.revoke.title", { name: revoking })} close={() => setRevoking(null)}>
          <div class="stack">
            <p>{t("certificates.revoke.text")}</p>
            <pre>peanut device revoke {revoking}</pre>
            <p class="soft small">{t("certificates.revoke.after")}</p>
          </div>
        </Sheet>
      )}
    </>
  );
}

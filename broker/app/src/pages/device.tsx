// What a greenhouse's and a vehicle's page have in common: alerts, what the node has said, its groups, its facts.
//
// Rule: each card fetches what it shows, and says so when it cannot.

import { useEffect } from "preact/hooks";

import { call, get, may } from "../api";
import { useCell } from "../cell";
import type { Alert, Device, Group, NodeEvent, Recipe } from "../contract";
import { alerts, fleet, link, nodeEvents } from "../live";
import { to } from "../router";
import { named, number, said, t, when } from "../words";
import { Card, Fetched, Head, Pill, Trouble, useLoad, useSend } from "../ui/parts";
import { Curve } from "../ui/curve";
import { Greenhouse } from "./greenhouse";
import { Vehicle } from "./vehicle";

/** `#/device/<name>`: what the label on the node leads to. */
export function DevicePage({ name }: { name: string }) {
  const device = useCell(fleet).get(name);
  const { live } = useCell(link);
  if (device) return device.kind === "vehicle" ? <Vehicle device={device} key={name} /> : <Greenhouse device={device} key={name} />;
  return (
    <>
      <Head title={name} back={{ href: "#/", label: t("fleet") }} />
      <p class="card">{t(live ? "device.missing" : "loading")}</p>
    </>
  );
}

export function AlertItem({ alert, linked = false }: { alert: Alert; linked?: boolean }) {
  const { busy, error, send } = useSend(async () => {
    const changed = await call<Alert>("POST", `/alerts/${alert.id}/acknowledge`, { note: "" });
    alerts.set(alerts.value.map((other) => (other.id === changed.id ? changed : other)));
  });
  const tone = alert.state === "cleared" ? "quiet" : alert.severity === "critical" ? "wrong" : "warned";
  return (
    <li>
      <span class="grow">
        {linked && (fleet.value.has(alert.device) ? <a href={to("device", alert.device)}>{alert.device}</a> : alert.device)}{" "}
        <span title={alert.text}>{said(alert.text)}</span>
        <br />
        <small class="soft">
          {when(alert.raised)}
          {alert.acknowledged && ` · ${t("alert.by", { user: alert.acknowledged.by })}`}
          {alert.cleared !== null && ` · ${t("alert.cleared", { when: when(alert.cleared) })}`}
        </small>
      </span>
      <Pill tone={tone}>{named("severity", alert.severity)}</Pill>
      {alert.state === "raised" && may("operator") && (
        <button class="little" disabled={busy} onClick={() => send()}>{t("alert.acknowledge")}</button>
      )}
      {error !== undefined && <Trouble error={error} />}
    </li>
  );
}

export function AlertList({ device }: { device: string }) {
  const here = useCell(alerts).filter((alert) => alert.device === device && alert.state !== "cleared");
  if (!here.length) return null;
  return (
    <Card title={t("alerts")}>
      <ul class="list">{here.map((alert) => <AlertItem key={alert.id} alert={alert} />)}</ul>
    </Card>
  );
}

export function EventLog({ device }: { device: string }) {
  const latest = useCell(nodeEvents);
  const path = `/devices/${encodeURIComponent(device)}/events?limit=20`;
  const log = useLoad((signal) => get<{ events: NodeEvent[] }>(path, { signal }), [device]);
  useEffect(() => {
    if (latest?.device === device) log.again();
  }, [latest]);
  return (
    <Card title={t("events")}>
      <Fetched from={log} empty={({ events }) => events.length === 0 && t("events.none")}>
        {({ events }) => (
          <ul class="list">
            {events.map((event) => (
              <li key={event.seq}>
                <span class="grow"><span title={event.text}>{event.text ? said(event.text) : named("fault", event.id)}</span></span>
                {event.clear && <Pill tone="fine">{t("events.over")}</Pill>}
                <small class="soft">{when(event.ts)}</small>
              </li>
            ))}
          </ul>
        )}
      </Fetched>
    </Card>
  );
}

/** Whose set point it is: a group's, a recipe's with its curve, or nobody's. */
export function GroupCard({ device }: { device: Device }) {
  const groups = useLoad((signal) => get<{ groups: Group[] }>("/groups", { signal }), [device.name]);
  const mine = groups.value?.groups.filter((group) => group.members.includes(device.name)) ?? [];
  const wanted = mine.map((group) => group.desired).find((desired) => desired && "recipe" in desired);
  const recipe = wanted && "recipe" in wanted ? wanted.recipe : null;
  const curve = useLoad(
    async (signal) => (recipe ? get<Recipe>(`/recipes/${encodeURIComponent(recipe)}`, { signal }) : null),
    [recipe],
  );
  // What `by` says holds until an order or a recipe replaces it.
  const own = device.state?.["by"] === "schedule";
  if (!mine.length && !own) return null;
  return (
    <Card title={t("schedule")}>
      <p class="row">
        {mine.map((group) => <a key={group.name} href={to("groups", group.name)}>{group.title || group.name}</a>)}
      </p>
      {curve.value ? (
        <>
          <p class="small soft">{t("schedule.recipe", { name: curve.value.title || curve.value.name })}</p>
          <Curve recipe={curve.value} />
        </>
      ) : (
        <p class="small soft">{t(own ? "schedule.own" : "schedule.none")}</p>
      )}
    </Card>
  );
}

/** Quantities of which nobody wants to know tenths. */
const WHOLE = new Set(["speed", "rpm", "fuel", "co2", "light", "humidity", "soil", "satellites", "course", "codes"]);
const YES_NO = new Set(["door", "brake", "parked", "locked"]);
const SHOWN_ELSEWHERE = new Set(["temperature", "latitude", "longitude", "locked"]);

function measured(name: string, value: number | null): string {
  if (YES_NO.has(name) && value !== null) return t(value ? "yes" : "no");
  return number(value, WHOLE.has(name) ? 0 : 1);
}

/** What a workshop asks for; how many there are where nobody says which. */
function codes(device: Device, count: number | null): string {
  if (count === 0) return t("codes.none");
  return device.codes?.length ? device.codes.join(", ") : measured("codes", count);
}

export function DeviceFacts({ device }: { device: Device }) {
  const full = useLoad((signal) => get<Device>(`/devices/${encodeURIComponent(device.name)}`, { signal }), [device.name]);
  const health = full.value?.health ?? {};
  const facts: [string, string][] = [
    [t("fact.status"), `${named("presence", device.presence)}${device.presence_ts === null ? "" : ` ${t("since", { when: when(device.presence_ts) })}`}`],
    [t("fact.firmware"), device.fw ?? "–"],
  ];
  const days = health["cert_days"];
  if (typeof days === "number") facts.push([t("fact.certificate"), t("days", { n: number(days, 0) })]);
  const rssi = health["rssi"];
  if (typeof rssi === "number") facts.push([t("fact.wifi"), `${number(rssi, 0)} dBm`]);
  for (const [name, [value, quality]] of Object.entries(device.readings ?? {})) {
    if (SHOWN_ELSEWHERE.has(name)) continue;
    const text = name === "codes" ? codes(device, value) : measured(name, value);
    facts.push([named("quantity", name), quality === "ok" ? text : named("quality", quality)]);
  }
  return (
    <Card title={t("facts")}>
      <dl class="facts">
        {facts.map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
      </dl>
    </Card>
  );
}

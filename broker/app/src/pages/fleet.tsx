// The fleet: every device a tile, what is wrong on top.
//
// Rule: a tile says in words how it stands, and never by colour alone.

import { useState } from "preact/hooks";

import { useCell } from "../cell";
import type { Device, Kind } from "../contract";
import { type Finding, Grade, numeric, ranked, setpoint, temperature } from "../fleet";
import { alerts, fleet, link } from "../live";
import { to } from "../router";
import { ago, named, number, said, t } from "../words";
import { Icon } from "../ui/icon";
import { Head, Pill, type Tone } from "../ui/parts";

/** From so many devices on there is something to search in. */
const SEARCH_FROM = 9;

export function Fleet() {
  const devices = useCell(fleet);
  const open = useCell(alerts);
  const { live, asOf } = useCell(link);
  const [kind, setKind] = useState<Kind | "all">("all");
  const [wanted, setWanted] = useState("");
  const all = ranked(devices, open);
  const kinds = new Set(all.map(({ device }) => device.kind));
  const found = all.filter(({ device }) =>
    (kind === "all" || device.kind === kind) &&
    (!wanted || [device.name, ...device.groups].some((word) => word.toLowerCase().includes(wanted.toLowerCase()))));
  const wrong = all.filter(({ finding }) => finding.grade >= Grade.Away).length;
  const summary = wrong ? t("fleet.wrong", { n: wrong, all: all.length }) : t("fleet.fine", { all: all.length });
  return (
    <>
      <Head title={t("fleet")} under={all.length ? summary : undefined} />
      {kinds.size > 1 && (
        <div class="chips above" role="group" aria-label={t("fleet.kind")}>
          {(["all", "greenhouse", "vehicle"] as const).map((name) => (
            <button key={name} aria-pressed={kind === name} onClick={() => setKind(name)}>{t(`kind.${name}`)}</button>
          ))}
        </div>
      )}
      {all.length >= SEARCH_FROM && (
        <p class="above"><input type="search" aria-label={t("fleet.search")} placeholder={t("fleet.search")} value={wanted}
          onInput={(event) => setWanted(event.currentTarget.value)} /></p>
      )}
      {all.length === 0 && <p class="card">{live || asOf !== null ? t("fleet.none") : t("loading")}</p>}
      <ul class="grid">
        {found.map(({ device, finding }) => <li key={device.name}><Tile device={device} finding={finding} /></li>)}
      </ul>
    </>
  );
}

const TONES: Record<number, Tone> = {
  [Grade.Fine]: "fine", [Grade.Quiet]: "quiet", [Grade.Away]: "warned", [Grade.Warned]: "warned", [Grade.Wrong]: "wrong",
};

export const toneOf = (finding: Finding): Tone => TONES[finding.grade] ?? "quiet";

function Tile({ device, finding }: { device: Device; finding: Finding }) {
  const vehicle = device.kind === "vehicle";
  return (
    <a class={`tile ${toneOf(finding)}`} href={to("device", device.name)}>
      <span class="tile-name"><Icon name={device.kind} size={19} />{vehicle ? <Vin vin={device.name} /> : device.name}</span>
      <span class={`card-number ${vehicle ? "word" : ""}`}>{vehicle ? vehicleWord(device) : `${number(temperature(device))}°`}</span>
      {!vehicle && <small class="soft">{t("setpoint.short", { value: number(setpoint(device)) })}</small>}
      <Pill tone={toneOf(finding)}>{findingWords(device, finding)}</Pill>
    </a>
  );
}

/** A VIN that needs two lines breaks before its last eight, which people know a car by. */
function Vin({ vin }: { vin: string }) {
  return <span>{vin.slice(0, -8)}<wbr />{vin.slice(-8)}</span>;
}

function vehicleWord(device: Device): string {
  const locked = device.state?.["locked"];
  return typeof locked === "boolean" ? t(locked ? "locked" : "unlocked") : "–";
}

/** How it stands, in a few words. */
export function findingWords(device: Device, finding: Finding): string {
  switch (finding.what) {
    case "fault":
      // A vehicle names the sensor that fails, a greenhouse what has come of it.
      return device.kind === "vehicle" ? t("fault.of", { what: named("quantity", finding.detail) }) : named("fault", finding.detail);
    case "alert":
      return said(finding.detail);
    case "offline":
      return t("offline.since", { ago: ago(device.presence_ts) });
    case "sleeping":
      return t("sleeping");
    case "unknown":
      return t("unseen");
    case "fine":
      if (device.kind === "vehicle") return moving(device);
      if (device.state?.["heater"] === true) return t("heating");
      if (device.state?.["vent"] === true) return t("venting");
      return t("holding");
  }
}

function moving(device: Device): string {
  const speed = numeric(device.readings?.["speed"]?.[0]);
  if (speed !== null && speed > 0.5) return t("moving", { speed: number(speed, 0) });
  return t(device.state?.["running"] === true ? "running" : "standing");
}

// A greenhouse: how warm it is and ought to be, why, what it was like, and what it has said.
//
// Rule: the set point on the stepper is a draft until it is sent; what is in force is what the node reports.

import { useEffect, useState } from "preact/hooks";

import { may } from "../api";
import { useCell } from "../cell";
import type { Device } from "../contract";
import { finding, numeric, setpoint, temperature } from "../fleet";
import { alerts, link } from "../live";
import { ago, named, number, said, t } from "../words";
import { plain } from "../words/said";
import { Chart } from "../ui/chart";
import { OrderLine, useOrder } from "../ui/order";
import { Card, Head, Pill, Segments, Stepper } from "../ui/parts";
import { AlertList, DeviceFacts, EventLog, GroupCard } from "./device";
import { findingWords, toneOf } from "./fleet";

/** What the stepper offers; the node has the last word on what it takes. */
const LEAST = 0;
const MOST = 45;
const STEP = 0.5;

export function Greenhouse({ device }: { device: Device }) {
  const open = useCell(alerts);
  const { live } = useCell(link);
  const found = finding(device, open);
  const reason = device.state?.["reason"];
  return (
    <div class={live ? "" : "old"}>
      <Head title={device.name} back={{ href: "#/", label: t("fleet") }}>
        {device.sim && <Pill tone="quiet">{t("simulated")}</Pill>}
        <Pill tone={toneOf(found)}>{findingWords(device, found)}</Pill>
      </Head>
      <div class="columns">
        <div class="stack">
          <section class="card" aria-label={t("temperature")}>
            <p class="big" data-testid="temperature">{number(temperature(device))}<span class="unit">°C</span></p>
            {typeof reason === "string" && <p class="reason" title={reason}>{said(plain(reason))}</p>}
            <p class="small soft">{t("as-of", { ago: ago(device.readings_ts ?? device.state_ts) })}</p>
            <SetPoint device={device} />
          </section>
          <Outputs device={device} />
          <GroupCard device={device} />
        </div>
        <div class="stack">
          <Chart device={device.name} />
          <AlertList device={device.name} />
          <EventLog device={device.name} />
          <DeviceFacts device={device} />
        </div>
      </div>
    </div>
  );
}

function SetPoint({ device }: { device: Device }) {
  const inForce = setpoint(device);
  const [draft, setDraft] = useState<number | null>(null);
  const { live } = useCell(link);
  const { order, busy, give, clear } = useOrder(device.name);
  useEffect(() => setDraft(null), [device.name]);
  const shown = draft ?? inForce ?? 18;
  const allowed = device.commands.includes("UpdateTemperature");
  const by = device.state?.["by"];
  const send = async (): Promise<void> => {
    const answer = await give("UpdateTemperature", { temperature: shown });
    if (answer.stage === "done") setDraft(null);
  };
  return (
    <>
      <p class="row" style={{ marginTop: "18px" }}>
        <strong class="grow">{t("setpoint")}</strong>
        <span data-testid="setpoint">{number(inForce)} °C</span>
        {typeof by === "string" && <Pill tone="quiet">{named("by", by)}</Pill>}
      </p>
      {allowed ? (
        <>
          <Stepper label={t("setpoint")} value={shown} step={STEP} least={LEAST} most={MOST}
            change={(value) => (setDraft(value), busy || clear())} />
          <button class="primary wide" disabled={busy || !live || draft === null || draft === inForce} onClick={() => void send()}>
            {busy ? t("waiting") : t("setpoint.set", { value: number(shown) })}
          </button>
          <OrderLine order={order} />
        </>
      ) : (
        <p class="small soft">{t(may("operator") ? "not-allowed" : "viewer-only")}</p>
      )}
    </>
  );
}

const OUTPUTS = {
  heater: ["auto", "off"],
  vent: ["auto", "open", "closed"],
  fan: ["auto", "on", "off"],
  irrigation: ["auto", "on", "off"],
  light: ["auto", "on", "off"],
} as const;

function Outputs({ device }: { device: Device }) {
  const { order, busy, give } = useOrder(device.name);
  const { live } = useCell(link);
  const said = device.state?.["mode"];
  const mode = typeof said === "string" ? said : "auto";
  const present = (Object.keys(OUTPUTS) as (keyof typeof OUTPUTS)[]).filter((name) => device.state && name in device.state);
  if (!present.length) return null;
  /** `mode` reads `auto`, or `heater off, vent open`. */
  const ordered = (name: string): string => mode.split(", ").find((part) => part.startsWith(`${name} `))?.slice(name.length + 1) ?? "auto";
  return (
    <Card title={t("outputs")}>
      <ul class="list">
        {present.map((name) => {
          const on = device.state?.[name];
          return (
            <li key={name}>
              <span class="grow">
                {t(`command.${name}`)} <Pill tone={on === true ? "fine" : "quiet"}>{stateWord(name, on)}</Pill>
              </span>
              {device.commands.includes(name) && (
                <Segments label={t(`command.${name}`)} chosen={ordered(name)}
                  values={OUTPUTS[name].map((value) => [value, t(`mode.${value}`)] as const)}
                  choose={(value) => live && !busy && void give(name, { mode: value })} />
              )}
            </li>
          );
        })}
      </ul>
      <OrderLine order={order} />
    </Card>
  );
}

function stateWord(name: keyof typeof OUTPUTS, on: unknown): string {
  if (numeric(on) !== null) return `${number(numeric(on), 0)} %`;
  if (typeof on !== "boolean") return "–";
  if (name === "vent") return t(on ? "mode.open" : "mode.closed");
  return t(on ? "mode.on" : "mode.off");
}

// A vehicle: the key in the pocket, where it stands, and how it is.
//
// Rule: what opens or starts it is proved a second time, for this one command, and the proof is not kept.

import { useEffect, useRef, useState } from "preact/hooks";

import { call, get, may, me } from "../api";
import { useCell } from "../cell";
import type { Device, Series } from "../contract";
import { finding } from "../fleet";
import { alerts, link } from "../live";
import { to } from "../router";
import { type Fix, HEIGHT, WIDTH, distance, place, sketch, track } from "../track";
import { ago, named, number, said, t } from "../words";
import { Icon, type IconName } from "../ui/icon";
import { OrderLine, useOrder } from "../ui/order";
import { Card, Field, Head, Pill, Sheet, Trouble, useLoad, useSend } from "../ui/parts";
import { AlertList, DeviceFacts, EventLog } from "./device";
import { findingWords, toneOf } from "./fleet";
import { passkeyProof } from "../passkey";

const KEYS: [string, IconName][] = [["unlock", "unlock"], ["lock", "lock"], ["start", "power"], ["stop", "stop"], ["horn", "horn"]];

export function Vehicle({ device }: { device: Device }) {
  const open = useCell(alerts);
  const { live } = useCell(link);
  const found = finding(device, open);
  const { order, busy, give } = useOrder(device.name);
  const [proving, setProving] = useState<string | null>(null);
  const locked = device.state?.["locked"];
  const reason = device.state?.["reason"];
  const press = (command: string): void => {
    if (device.step_up.includes(command)) setProving(command);
    else void give(command, {});
  };
  return (
    <div class={live ? "" : "old"}>
      <Head title={device.name} back={{ href: "#/", label: t("fleet") }}>
        {device.sim && <Pill tone="quiet">{t("simulated")}</Pill>}
        <Pill tone={toneOf(found)}>{findingWords(device, found)}</Pill>
      </Head>
      <div class="columns">
        <div class="stack">
          <section class="card" aria-label={t("keys")}>
            <p class="big" data-testid="locked" style={{ fontSize: "2.75rem" }}>
              {typeof locked === "boolean" ? t(locked ? "locked" : "unlocked") : t("unknown")}
            </p>
            {typeof reason === "string" && <p class="reason" title={reason}>{said(reason)}</p>}
            <p class="small soft">{t("as-of", { ago: ago(device.state_ts) })}</p>
            <OrderLine order={order} />
            <div class="keys" style={{ marginTop: "16px" }}>
              {KEYS.filter(([name]) => device.commands.includes(name)).map(([name, icon]) => (
                <button key={name} class={`${name === "horn" ? "whole" : ""} ${name === (locked === false ? "lock" : "unlock") ? "primary" : ""}`}
                  disabled={busy || !live} onClick={() => press(name)}>
                  <Icon name={icon} size={28} />
                  {named("command", name)}
                </button>
              ))}
            </div>
            {device.commands.length === 0 && <p class="small soft">{t("viewer-only")}</p>}
          </section>
          {may("operator") && (
            <p><a class="button wide" href={to("shares", device.name)}><Icon name="share" />{t("share.make")}</a></p>
          )}
        </div>
        <div class="stack">
          <Position device={device} />
          <AlertList device={device.name} />
          <DeviceFacts device={device} />
          <EventLog device={device.name} />
        </div>
      </div>
      {proving && (
        <Proof device={device.name} command={proving} close={() => setProving(null)}
          proved={(proof) => (setProving(null), void give(proving, {}, proof))} />
      )}
    </div>
  );
}

/** The password, the PIN of a share, or a passkey: good for one command. */
function Proof({ device, command, close, proved }: {
  device: string;
  command: string;
  close: () => void;
  proved: (stepUp: string) => void;
}) {
  const who = useCell(me);
  const shared = who?.share != null;
  const [secret, setSecret] = useState("");
  const ask = async (proof: Record<string, unknown>): Promise<void> => {
    const { step_up } = await call<{ step_up: string }>("POST", "/step-up", { device, command, ...proof });
    proved(step_up);
  };
  const word = useSend(() => ask(shared ? { pin: secret } : { password: secret }));
  const key = useSend(async () => ask({ passkey: await passkeyProof(device, command) }));
  const busy = word.busy || key.busy;
  return (
    <Sheet title={`${named("command", command)}: ${device}`} close={close}>
      <form onSubmit={word.send}>
        <p class="soft">{t("proof.why")}</p>
        {who && who.passkeys > 0 && (
          <button type="button" class="primary wide" disabled={busy} onClick={() => key.send()}>{t("proof.passkey")}</button>
        )}
        <Field label={t(shared ? "pin" : "password")} type="password" required autofocus value={secret}
          inputMode={shared ? "numeric" : "text"} autocomplete={shared ? "one-time-code" : "current-password"}
          onInput={(event) => setSecret(event.currentTarget.value)} />
        {(word.error ?? key.error) !== undefined && <Trouble error={word.error ?? key.error} />}
        <button class="primary wide" disabled={busy || !secret}>{named("command", command)}</button>
      </form>
    </Sheet>
  );
}

/** Metres that it must have moved before there is another point of the track. */
const MOVED_M = 4;
const TRACK_MAX = 500;
/** How far back the track begins, as far as the gateway's history goes. */
const TRACK_S = 3600;

/** Where it was in the last hour; nothing where there is no history. */
async function past(device: string): Promise<Fix[]> {
  const query = `quantity=latitude&quantity=longitude&from=${Math.floor(Date.now() / 1000) - TRACK_S}`;
  try {
    const { series } = await get<{ series: Series[] }>(`/devices/${encodeURIComponent(device)}/history?${query}`);
    return track(series);
  } catch {
    return [];
  }
}

function Position({ device }: { device: Device }) {
  const before = useLoad(() => past(device.name), [device.name]).value;
  const fixes = useRef<Fix[]>([]);
  const { lat, lon } = place(device.readings?.["latitude"]?.[0], device.readings?.["longitude"]?.[0]);
  useEffect(() => {
    if (before) fixes.current = [...before, ...fixes.current];
  }, [before]);
  if (lat !== null && lon !== null) {
    const last = fixes.current.at(-1);
    if (!last || distance(last, { lat, lon }) > MOVED_M) fixes.current = [...fixes.current.slice(-TRACK_MAX), { lat, lon }];
  }
  const drawn = sketch(fixes.current);
  const here = drawn?.path.at(-1);
  const old = device.readings?.["latitude"]?.[1] !== "ok";
  return (
    <Card title={t("position")} aside={old && drawn ? <Pill tone="warned">{t("position.old")}</Pill> : undefined}>
      {drawn && here ? (
        <>
          <svg class="sketch" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img"
            aria-label={t("position.label", { lat: number(lat, 5), lon: number(lon, 5) })}>
            {[1, 2, 3].map((n) => <circle key={n} cx={here.x} cy={here.y} r={n * drawn.bar} fill="none" stroke="var(--line)" />)}
            <polyline points={drawn.path.map(({ x, y }) => `${x},${y}`).join(" ")} fill="none" stroke="var(--leaf)"
              stroke-width="3.5" stroke-linejoin="round" stroke-linecap="round" opacity="0.75" />
            <circle cx={here.x} cy={here.y} r="17" fill="var(--leaf)" opacity="0.2" />
            <circle cx={here.x} cy={here.y} r="8" fill="var(--leaf)" stroke="var(--card)" stroke-width="3" />
            <path d={`M${WIDTH - 26} 42V18m-6 8 6-8 6 8`} fill="none" stroke="var(--soft)" stroke-width="2" />
            <text x={WIDTH - 26} y="58" text-anchor="middle" font-size="13" fill="var(--soft)">{t("north")}</text>
            <path d={`M18 ${HEIGHT - 18}v-6m0 6h${drawn.bar}v-6`} fill="none" stroke="var(--soft)" stroke-width="2" />
            <text x="24" y={HEIGHT - 26} font-size="13" fill="var(--soft)">
              {drawn.scale >= 1000 ? `${drawn.scale / 1000} km` : `${drawn.scale} m`}
            </text>
          </svg>
          <p class="row small" style={{ marginTop: "10px" }}>
            <span class="mono grow">{number(lat, 5)}, {number(lon, 5)}</span>
            <a href={`geo:${lat},${lon}`}>{t("position.open")}</a>
          </p>
        </>
      ) : (
        <p class="soft">{t("position.none")}</p>
      )}
    </Card>
  );
}

// A new node: which command flashes it, the code for its label, and the wait until it is there.
//
// Rule: a node's key is made where it is flashed, on the gateway PC, and never in a browser. What is shown as online is
// what the gateway has heard of the node itself.

import { useState } from "preact/hooks";

import boards from "../boards.json";
import { useCell } from "../cell";
import type { Kind } from "../contract";
import { fleet } from "../live";
import { to } from "../router";
import { named, t } from "../words";
import { Qr } from "../ui/qr";
import { Card, Field, Head, Pill, Segments } from "../ui/parts";

const NAME = /^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$/;
const VIN = /^[A-HJ-NPR-Z0-9]{17}$/;
const BOARDS: Record<Kind, string[]> = boards;

export function Onboard() {
  const [kind, setKind] = useState<Kind>("greenhouse");
  const [name, setName] = useState("");
  const [board, setBoard] = useState("");
  const device = useCell(fleet).get(name);
  const good = (kind === "vehicle" ? VIN : NAME).test(name);
  const chosen = board || BOARDS[kind][0]!;
  const link = `${location.origin}/#/device/${name}`;
  return (
    <>
      <Head title={t("onboard")} back={{ href: to("more"), label: t("more") }} under={t("onboard.text")} />
      <div class="columns">
        <Card title={t("onboard.which")}>
          <form onSubmit={(event) => event.preventDefault()}>
            <Segments label={t("fleet.kind")} chosen={kind} choose={(value) => (setKind(value), setBoard(""))}
              values={[["greenhouse", t("kind.greenhouse")], ["vehicle", t("kind.vehicle")]]} />
            <Field label={t(kind === "vehicle" ? "vin" : "name")} hint={t(kind === "vehicle" ? "vin.hint" : "name.hint")} value={name}
              autocapitalize="none" autocomplete="off" spellcheck={false}
              onInput={(event) => setName(kind === "vehicle" ? event.currentTarget.value.toUpperCase() : event.currentTarget.value)} />
            <Field label={t("board")}>
              <select value={chosen} onChange={(event) => setBoard(event.currentTarget.value)}>
                {BOARDS[kind].map((one) => <option key={one}>{one}</option>)}
              </select>
            </Field>
          </form>
        </Card>
        {good ? (
          <div class="stack">
            <Card title={t("onboard.flash")}>
              <p class="soft small">{t("onboard.flash.text")}</p>
              <pre data-testid="flash">make flash NAME={name} BOARD={chosen}</pre>
            </Card>
            <Card title={t("onboard.wait")} aside={
              <Pill tone={device?.presence === "online" ? "fine" : "quiet"}>{device ? named("presence", device.presence) : t("unseen")}</Pill>
            }>
              {device?.presence === "online"
                ? <p><a class="button primary wide" href={to("device", name)}>{t("onboard.there", { name })}</a></p>
                : <p class="soft" role="status">{t("onboard.waiting")}</p>}
            </Card>
            <Card title={t("onboard.label")}>
              <p class="soft small">{t("onboard.label.text")}</p>
              <Qr text={link} label={link} />
              <p class="mono">{link}</p>
            </Card>
          </div>
        ) : null}
      </div>
    </>
  );
}

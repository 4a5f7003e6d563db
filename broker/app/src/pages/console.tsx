// A small MQTT console: connect over WebSocket, subscribe, publish, see.
//
// Rule: it may what its user may over MQTT, by the gateway's rules; what is refused is shown as refused.

import { useEffect, useRef, useState } from "preact/hooks";

import { me } from "../api";
import { useCell } from "../cell";
import { Client, type Heard } from "../mqtt/client";
import { to } from "../router";
import { t } from "../words";
import { Card, Field, Head, Pill } from "../ui/parts";

const KEPT = 200;
/** Characters of a payload that are shown. */
const SHOWN = 2000;

interface Line {
  n: number;
  at: string;
  topic: string;
  text: string;
  bad: boolean;
}

function printable(payload: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(payload).slice(0, SHOWN);
  } catch {
    return `${payload.length} B: ${[...payload.slice(0, 48)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}`;
  }
}

export function Console() {
  const client = useRef<Client | null>(null);
  const [open, setOpen] = useState<"closed" | "opening" | "open">("closed");
  const [lines, setLines] = useState<Line[]>([]);
  const [filter, setFilter] = useState("/plant/+/state");
  const [topic, setTopic] = useState("");
  const [payload, setPayload] = useState("");
  const [password, setPassword] = useState("");
  const who = useCell(me);
  const count = useRef(0);
  const write = (subject: string, text: string, bad = false): void => {
    count.current += 1;
    const line = { n: count.current, at: new Date().toLocaleTimeString(), topic: subject, text, bad };
    setLines((old) => [line, ...old].slice(0, KEPT));
  };
  const hear = (heard: Heard): void => {
    switch (heard.kind) {
      case "open":
        setOpen("open");
        return write("", t("console.opened"));
      case "closed":
        setOpen("closed");
        client.current = null;
        return write("", `${t("console.closed")} ${heard.why}`, heard.why !== "");
      case "granted":
        return write(heard.filter, heard.code < 0x80 ? t("console.granted") : t("console.refused", { code: heard.code.toString(16) }), heard.code >= 0x80);
      case "taken":
        return write(heard.topic, heard.code < 0x80 ? t("console.taken") : t("console.refused", { code: heard.code.toString(16) }), heard.code >= 0x80);
      case "message":
        return write(heard.topic, printable(heard.payload));
    }
  };
  const connect = (event: Event): void => {
    event.preventDefault();
    setOpen("opening");
    client.current = new Client(`${location.origin.replace(/^http/, "ws")}/mqtt`, who?.name ?? "", password, hear);
    setPassword("");
  };
  useEffect(() => () => client.current?.close(), []);
  const ready = open === "open";
  return (
    <>
      <Head title={t("console")} back={{ href: to("more"), label: t("more") }}>
        <Pill tone={ready ? "fine" : "quiet"}>{t(`console.${open}`)}</Pill>
        {open !== "closed" && <button class="little" onClick={() => client.current?.close()}>{t("console.disconnect")}</button>}
      </Head>
      {open === "closed" && (
        <section class="card" aria-label={t("console.connect")} style={{ marginBottom: "16px" }}>
          <form onSubmit={connect}>
            <Field label={t("password")} hint={t("console.password")} type="password" autocomplete="current-password" required
              value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
            <button class="primary">{t("console.connect")}</button>
          </form>
        </section>
      )}
      <div class="columns">
        <div class="stack">
          <Card>
            <form onSubmit={(event) => (event.preventDefault(), client.current?.subscribe(filter))}>
              <Field label={t("console.filter")} class="mono" required autocapitalize="none" spellcheck={false} value={filter}
                onInput={(event) => setFilter(event.currentTarget.value)} />
              <button disabled={!ready}>{t("console.subscribe")}</button>
            </form>
          </Card>
          <Card>
            <form onSubmit={(event) => (event.preventDefault(), client.current?.publish(topic, payload, false))}>
              <Field label={t("console.topic")} class="mono" required autocapitalize="none" spellcheck={false} value={topic}
                placeholder="/plant/peanut/UpdateTemperature" onInput={(event) => setTopic(event.currentTarget.value)} />
              <Field label={t("console.payload")}>
                <textarea class="mono" rows={3} spellcheck={false} value={payload} placeholder="temperature:15"
                  onInput={(event) => setPayload(event.currentTarget.value)} />
              </Field>
              <button disabled={!ready}>{t("console.publish")}</button>
            </form>
          </Card>
        </div>
        <Card title={t("console.heard")} aside={<button class="plain little" onClick={() => setLines([])}>{t("console.clear")}</button>}>
          {lines.length === 0 && <p class="soft">{t("console.nothing")}</p>}
          <ul class="feed mono" tabIndex={0} role="log" aria-label={t("console.heard")}>
            {lines.map((line) => (
              <li key={line.n}>
                <span class="soft">{line.at}</span> <strong>{line.topic}</strong>{" "}
                {line.bad ? <Pill tone="wrong">{line.text}</Pill> : line.text}
              </li>
            ))}
          </ul>
        </Card>
      </div>
    </>
  );
}

// Shares: somebody may give a command for a while, "unlock for the mechanic, today 14 to 16 h".
//
// Rule: link and PIN are shown once, and go two ways. To share what takes a second proof takes one, too.

import { useState } from "preact/hooks";

import { call, get } from "../api";
import { useCell } from "../cell";
import type { Share } from "../contract";
import { fleet } from "../live";
import { to } from "../router";
import { named, t, when } from "../words";
import { Qr } from "../ui/qr";
import { Card, Confirm, Fetched, Field, Head, Pill, Sheet, Trouble, useLoad, useSend } from "../ui/parts";

/** For `<input type="datetime-local">`. */
function local(ts: number): string {
  const date = new Date(ts * 1000);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

const HOUR = 3600;

export function Shares({ device }: { device?: string | undefined }) {
  const shares = useLoad((signal) => get<{ shares: Share[] }>("/shares", { signal }), []);
  const [making, setMaking] = useState(device !== undefined);
  const [ending, setEnding] = useState<Share | null>(null);
  const now = Date.now() / 1000;
  const shown = (found: Share[]): Share[] => found.filter((share) => device === undefined || share.device === device);
  return (
    <>
      <Head title={t("shares")} back={device ? { href: to("device", device), label: device } : { href: to("more"), label: t("more") }}>
        <button class="little" onClick={() => setMaking(true)}>{t("share.make")}</button>
      </Head>
      <Card>
        <Fetched from={shares} empty={(found) => shown(found.shares).length === 0 && t("shares.none")}>
          {(found) => (
            <ul class="list">
              {shown(found.shares).map((share) => (
                <li key={share.id}>
                  <span class="grow">
                    {share.note || share.device}: {share.commands.map((one) => named("command", one)).join(", ")}
                    <small class="soft"><br />{share.device} · {when(share.from)} – {when(share.until)}</small>
                  </span>
                  <Pill tone={share.revoked || share.until < now ? "quiet" : share.from > now ? "warned" : "fine"}>
                    {t(share.revoked ? "share.revoked" : share.until < now ? "share.over" : share.from > now ? "share.coming" : "share.open-now")}
                  </Pill>
                  {!share.revoked && share.until > now && (
                    <button class="little danger" onClick={() => setEnding(share)}>{t("share.revoke")}</button>
                  )}
                </li>
              ))}
            </ul>
          )}
        </Fetched>
      </Card>
      {making && <Make device={device} close={() => (setMaking(false), shares.again())} />}
      {ending && (
        <Confirm title={t("share.revoke")} text={ending.note || ending.device} label="share.revoke" close={() => setEnding(null)}
          act={async () => {
            await call("DELETE", `/shares/${ending.id}`);
            shares.again();
          }} />
      )}
    </>
  );
}

function Make({ device, close }: { device: string | undefined; close: () => void }) {
  const devices = [...useCell(fleet).values()];
  const [chosen, setChosen] = useState(device ?? devices.find(({ kind }) => kind === "vehicle")?.name ?? devices[0]?.name ?? "");
  const [commands, setCommands] = useState<string[]>([]);
  const [from, setFrom] = useState(local(Date.now() / 1000));
  const [until, setUntil] = useState(local(Date.now() / 1000 + 2 * HOUR));
  const [note, setNote] = useState("");
  const [password, setPassword] = useState("");
  const [made, setMade] = useState<Share | null>(null);
  const { busy, error, send } = useSend(async () => {
    const seconds = (text: string): number => new Date(text).getTime() / 1000;
    const body = { device: chosen, commands, from: seconds(from), until: seconds(until), note, ...(proves ? { password } : {}) };
    setMade(await call<Share>("POST", "/shares", body));
  });
  const shared = devices.find(({ name }) => name === chosen);
  const offered = shared?.commands ?? [];
  const proves = commands.some((one) => shared?.step_up.includes(one));
  if (made) {
    const link = `${location.origin}/#/share/${made.secret}`;
    return (
      <Sheet title={t("share.made")} close={close}>
        <div class="stack">
          <p>{t("share.made.text")}</p>
          <Qr text={link} label={t("share.link")} />
          <pre data-testid="share-link">{link}</pre>
          <p>{t("pin")}: <strong class="mono" data-testid="share-pin">{made.pin}</strong></p>
        </div>
      </Sheet>
    );
  }
  return (
    <Sheet title={t("share.make")} close={close}>
      <form onSubmit={send}>
        <Field label={t("device")}>
          <select value={chosen} onChange={(event) => (setCommands([]), setChosen(event.currentTarget.value))}>
            {devices.map(({ name }) => <option key={name}>{name}</option>)}
          </select>
        </Field>
        <fieldset style={{ border: 0, padding: 0, margin: 0 }}>
          <legend>{t("share.what")}</legend>
          {offered.map((name) => (
            <label class="tick" key={name}>
              <input type="checkbox" checked={commands.includes(name)}
                onChange={() => setCommands(commands.includes(name) ? commands.filter((one) => one !== name) : [...commands, name])} />
              {named("command", name)}
            </label>
          ))}
        </fieldset>
        <Field label={t("share.from")} type="datetime-local" required value={from} onInput={(event) => setFrom(event.currentTarget.value)} />
        <Field label={t("share.until")} type="datetime-local" required value={until} onInput={(event) => setUntil(event.currentTarget.value)} />
        <Field label={t("share.note")} value={note} onInput={(event) => setNote(event.currentTarget.value)} />
        {proves && (
          <Field label={t("password")} type="password" autocomplete="current-password" required value={password}
            onInput={(event) => setPassword(event.currentTarget.value)} />
        )}
        {error !== undefined && <Trouble error={error} />}
        <button class="primary wide" disabled={busy || !commands.length}>{t("share.make")}</button>
      </form>
    </Sheet>
  );
}

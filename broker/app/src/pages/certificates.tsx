// Certificates: how long each node's is good for, and how one is taken back.
//
// Rule: what is listed is what the gateway has seen in handshakes. Revoking asks for the password once more, and what
// the gateway says is what is shown.

import { useState } from "preact/hooks";

import { call, get } from "../api";
import type { Certificate } from "../contract";
import { to } from "../router";
import { ago, number, t, when } from "../words";
import { Card, Fetched, Field, Head, Pill, type Tone, Sheet, Trouble, useLoad, useSend } from "../ui/parts";

/** Days from which a certificate is worth a look. */
const SOON = 30;
const DAY = 86_400;

function standing(one: Certificate): [Tone, string] {
  if (one.revoked) return ["wrong", t("certificates.revoked", { when: when(one.revoked.since) })];
  if (one.not_after === null) return ["quiet", t("unseen")];
  const days = Math.floor((one.not_after - Date.now() / 1000) / DAY);
  return [days < 0 ? "wrong" : days < SOON ? "warned" : "fine", t("days", { n: number(days, 0) })];
}

export function Certificates() {
  const found = useLoad((signal) => get<{ certificates: Certificate[] }>("/certificates", { signal }), []);
  const [chosen, setChosen] = useState<Certificate | null>(null);
  return (
    <>
      <Head title={t("certificates")} back={{ href: to("more"), label: t("more") }} under={t("certificates.text")}>
        <a class="button little" href="/ca.crt" download>{t("certificates.ca")}</a>
      </Head>
      <Card>
        <Fetched from={found} empty={({ certificates }) => certificates.length === 0 && t("fleet.none")}>
          {({ certificates }) => (
            <ul class="list">
              {[...certificates].sort((a, b) => (a.not_after ?? Infinity) - (b.not_after ?? Infinity)).map((one) => {
                const [tone, words] = standing(one);
                return (
                  <li key={one.device}>
                    <span class="grow">
                      <a href={to("device", one.device)}>{one.device}</a>
                      <small class="soft">
                        <br />{one.last === null ? t("unseen") : t("certificates.seen", { ago: ago(one.last) })}
                        {one.revoked?.why && ` · ${one.revoked.why}`}
                      </small>
                    </span>
                    <Pill tone={tone}>{words}</Pill>
                    <button class={`little ${one.revoked ? "" : "danger"}`} onClick={() => setChosen(one)}
                      aria-label={`${t(one.revoked ? "certificates.restore" : "certificates.revoke")}: ${one.device}`}>
                      {t(one.revoked ? "certificates.restore" : "certificates.revoke")}
                    </button>
                  </li>
                );
              })}
            </ul>
          )}
        </Fetched>
      </Card>
      {chosen && <Change one={chosen} close={() => setChosen(null)} done={found.again} />}
    </>
  );
}

function Change({ one, close, done }: { one: Certificate; close: () => void; done: () => void }) {
  const [why, setWhy] = useState("");
  const [password, setPassword] = useState("");
  const verb = one.revoked ? "restore" : "revoke";
  const { busy, error, send } = useSend(async () => {
    const body = { password, ...(verb === "revoke" ? { why } : {}) };
    await call("POST", `/devices/${encodeURIComponent(one.device)}/${verb}`, body);
    done();
    close();
  });
  return (
    <Sheet title={`${t(`certificates.${verb}`)}: ${one.device}`} close={close}>
      <form onSubmit={send}>
        <p class="soft">{t(`certificates.${verb}.text`)}</p>
        {verb === "revoke" && (
          <Field label={t("certificates.why")} maxLength={200} value={why} onInput={(event) => setWhy(event.currentTarget.value)} />
        )}
        <Field label={t("password")} type="password" autocomplete="current-password" required value={password}
          onInput={(event) => setPassword(event.currentTarget.value)} />
        {error !== undefined && <Trouble error={error} />}
        <button class={`wide ${verb === "revoke" ? "danger" : "primary"}`} disabled={busy}>{t(`certificates.${verb}`)}</button>
      </form>
    </Sheet>
  );
}

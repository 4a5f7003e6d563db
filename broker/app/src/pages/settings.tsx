// Settings of this phone and this account: language, light, notices, password, passkeys, where one is signed in.
//
// Rule: what belongs to the phone is kept in the phone, what belongs to the account at the gateway.

import { useEffect, useState } from "preact/hooks";

import { Problem, call, get, me } from "../api";
import { useCell } from "../cell";
import { makePasskey, passkeysWork } from "../passkey";
import { notices, noticesPossible, wantNotices } from "../push";
import { to } from "../router";
import { type Language, type Theme, chooseLanguage, chooseTheme, language, theme } from "../settings";
import { t } from "../words";
import { Card, Fetched, Field, Head, Segments, Trouble, useLoad, useSend } from "../ui/parts";
import { SignIns } from "./users";

export function Settings() {
  const shared = useCell(me)?.share != null;
  return (
    <>
      <Head title={t("settings")} back={{ href: to("more"), label: t("more") }} />
      <div class="stack">
        <Card title={t("settings.look")}>
          <div class="stack">
            <Segments<Language> label={t("language")} chosen={useCell(language)} choose={chooseLanguage}
              values={[["en", "English"], ["zh", "中文"]]} />
            <Segments<Theme> label={t("theme")} chosen={useCell(theme)} choose={chooseTheme}
              values={[["auto", t("theme.auto")], ["light", t("theme.light")], ["dark", t("theme.dark")]]} />
          </div>
        </Card>
        {!shared && <Notices />}
        {!shared && <Password />}
        {!shared && passkeysWork() && <Passkeys />}
        {!shared && <section class="card"><SignIns /></section>}
      </div>
    </>
  );
}

function Notices() {
  const [on, setOn] = useState<boolean | null>(null);
  useEffect(() => void notices().then(setOn), []);
  const { busy, error, send } = useSend(async () => {
    await wantNotices(!on);
    setOn(await notices());
  });
  return (
    <Card title={t("notices")}>
      {noticesPossible() ? (
        <label class="tick">
          <input type="checkbox" checked={on === true} disabled={busy || on === null} onChange={() => send()} />
          {t("notices.want")}
        </label>
      ) : (
        <p class="soft">{t("notices.impossible")} <a href={to("trust")}>{t("trust.title")}</a></p>
      )}
      {error !== undefined && <Trouble error={error} />}
    </Card>
  );
}

function Password() {
  const [old, setOld] = useState("");
  const [next, setNext] = useState("");
  const [done, setDone] = useState(false);
  const { busy, error, send } = useSend(async () => {
    await call("POST", "/me/password", { password: old, new_password: next });
    setOld("");
    setNext("");
    setDone(true);
  });
  return (
    <Card title={t("password")}>
      <form onSubmit={send}>
        <Field label={t("password.old")} type="password" autocomplete="current-password" required value={old}
          onInput={(event) => (setDone(false), setOld(event.currentTarget.value))} />
        <Field label={t("password.new")} type="password" autocomplete="new-password" required value={next}
          onInput={(event) => (setDone(false), setNext(event.currentTarget.value))} />
        {error !== undefined && <Trouble error={error} />}
        {done && <p class="banner fine" role="status">{t("password.changed")}</p>}
        <button disabled={busy}>{t("password.change")}</button>
      </form>
    </Card>
  );
}

interface Passkey {
  id: string;
  name: string;
  created: number;
}

function Passkeys() {
  const keys = useLoad((signal) => get<{ passkeys: Passkey[] }>("/passkeys", { signal }), []);
  const [password, setPassword] = useState("");
  const [name, setName] = useState("");
  const known = async (): Promise<void> => {
    keys.again();
    me.set(await get("/me"));
  };
  const { busy, error, send } = useSend(async () => {
    await makePasskey(password, name);
    setPassword("");
    setName("");
    await known();
  });
  if (keys.error instanceof Problem && keys.error.status === 404) return null;
  return (
    <Card title={t("passkeys")}>
      <p class="soft small">{t("passkeys.text")}</p>
      <Fetched from={keys}>
        {(found) => (
          <ul class="list">
            {found.passkeys.map((key) => (
              <li key={key.id}>
                <span class="grow">{key.name}</span>
                <button type="button" class="little danger"
                  onClick={() => void call("DELETE", `/passkeys/${encodeURIComponent(key.id)}`).then(known)}>
                  {t("delete")}
                </button>
              </li>
            ))}
          </ul>
        )}
      </Fetched>
      <form onSubmit={send}>
        <Field label={t("passkeys.name")} required value={name} onInput={(event) => setName(event.currentTarget.value)} />
        <Field label={t("password")} type="password" autocomplete="current-password" required value={password}
          onInput={(event) => setPassword(event.currentTarget.value)} />
        {error !== undefined && <Trouble error={error} />}
        <button disabled={busy}>{t("passkeys.make")}</button>
      </form>
    </Card>
  );
}

// The door: name and password; and the way in for somebody with whom a command is shared.
//
// Rule: what the gateway says about a refusal is what is shown; the app guesses nothing about why.

import { useState } from "preact/hooks";

import { openShare, signIn } from "../api";
import { go } from "../router";
import { chooseLanguage, language } from "../settings";
import { t } from "../words";
import { Field, Trouble, useSend } from "../ui/parts";

function Frame({ children }: { children: preact.ComponentChildren }) {
  return (
    <main class="door" id="main">
      <header>
        <img src="./icon.svg" alt="" width="72" height="72" />
        <h1>Peanut</h1>
      </header>
      {children}
    </main>
  );
}

export function Door() {
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const { busy, error, send } = useSend(() => signIn(user.trim(), password));
  const other = language.value === "zh" ? "en" : "zh";
  return (
    <Frame>
      <form onSubmit={send}>
        <Field label={t("user")} name="username" autocomplete="username" autocapitalize="none" spellcheck={false} required
          value={user} onInput={(event) => setUser(event.currentTarget.value)} />
        <Field label={t("password")} name="password" type="password" autocomplete="current-password" required
          value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
        {error !== undefined && <Trouble error={error} />}
        <button class="primary wide" disabled={busy}>{t(busy ? "signing-in" : "sign-in")}</button>
      </form>
      <p class="row small">
        <a class="grow" href="#/trust">{t("trust.title")}</a>
        <button type="button" class="plain little" lang={other} onClick={() => chooseLanguage(other)}>
          {other === "zh" ? "中文" : "English"}
        </button>
      </p>
    </Frame>
  );
}

/** `#/share/<secret>`: the link that somebody was sent. */
export function ShareDoor({ secret }: { secret: string }) {
  const { busy, error, send } = useSend(async () => {
    await openShare(secret);
    go();
  });
  return (
    <Frame>
      <form onSubmit={send}>
        <p>{t("share.invited")}</p>
        {error !== undefined && <Trouble error={error} />}
        <button class="primary wide" disabled={busy}>{t("share.open")}</button>
      </form>
    </Frame>
  );
}

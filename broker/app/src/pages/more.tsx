// Everything that is not needed every day, one way to each.
//
// Rule: who may not do a thing does not find a way to it here; the gateway says no in any case.

import { may, me, signOut } from "../api";
import { useCell } from "../cell";
import { to } from "../router";
import { named, t } from "../words";
import { Card, Head, Through } from "../ui/parts";

/** Whoever comes next on this phone is not told what the last one wanted to know. */
async function leave(): Promise<void> {
  const push = await import("../push");
  if (await push.notices().catch(() => false)) await push.wantNotices(false).catch(() => undefined);
  await signOut().catch(() => undefined);
}

export function More() {
  const who = useCell(me);
  return (
    <>
      <Head title={t("more")} under={who ? `${who.name} · ${named("role", who.role)}` : undefined} />
      <div class="stack">
        <Card>
          <ul class="list">
            <Through href={to("settings")} icon="gear" title={t("settings")} under={t("settings.under")} />
            {may("operator") && <Through href={to("shares")} icon="share" title={t("shares")} under={t("shares.under")} />}
            {may("operator") && <Through href={to("console")} icon="terminal" title={t("console")} under={t("console.under")} />}
            <Through href={to("trust")} icon="shield" title={t("trust.title")} under={t("trust.under")} />
          </ul>
        </Card>
        {may("admin") && (
          <Card title={t("admin")}>
            <ul class="list">
              <Through href={to("onboard")} icon="qr" title={t("onboard")} under={t("onboard.under")} />
              <Through href={to("certificates")} icon="shield" title={t("certificates")} under={t("certificates.under")} />
              <Through href={to("users")} icon="user" title={t("users")} under={t("users.under")} />
              <Through href={to("audit")} icon="list" title={t("audit")} under={t("audit.under")} />
            </ul>
          </Card>
        )}
        <button class="wide" onClick={() => void leave()}>{t("sign-out")}</button>
      </div>
    </>
  );
}

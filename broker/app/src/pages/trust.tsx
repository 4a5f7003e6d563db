// "Trusted HTTPS": three ways to a gateway that the phone trusts, and whether it does.
//
// Rule: the steps are for the phone that reads them, the others a tap away; the result is tried, not assumed.

import { useEffect, useState } from "preact/hooks";

import { useCell } from "../cell";
import { me } from "../api";
import { to } from "../router";
import { type Trust, check, fingerprint } from "../trust";
import { type Key, t } from "../words";
import { Qr } from "../ui/qr";
import { Card, Head, Segments } from "../ui/parts";

const PLATFORMS = ["ios", "android", "windows", "mac", "linux"] as const;
type Platform = (typeof PLATFORMS)[number];
const STEPS: Record<Platform, number> = { ios: 4, android: 3, windows: 3, mac: 3, linux: 3 };

function here(): Platform {
  const agent = navigator.userAgent;
  if (/iPhone|iPad/.test(agent)) return "ios";
  if (/Android/.test(agent)) return "android";
  if (/Windows/.test(agent)) return "windows";
  return /Mac OS/.test(agent) ? "mac" : "linux";
}

export function TrustPage() {
  const [result, setResult] = useState<Trust | null>(null);
  const [platform, setPlatform] = useState<Platform>(here());
  const [print, setPrint] = useState<string | null>(null);
  const who = useCell(me);
  const look = (): void => {
    setResult(null);
    void check().then(setResult);
  };
  useEffect(() => {
    look();
    fetch("/ca.crt").then(async (answer) => answer.ok && setPrint(await fingerprint(await answer.text()))).catch(() => undefined);
  }, []);
  const good = result === "trusted" || result === "local";
  const ca = `${location.origin}/ca.crt`;
  return (
    <>
      <Head title={t("trust.title")} back={who ? { href: to("more"), label: t("more") } : { href: "#/", label: t("sign-in") }} under={t("trust.text")} />
      <p class={`banner ${result === null ? "" : good ? "fine" : "wrong"}`} role="status" data-trust={result ?? ""}>
        <span style={{ flex: 1 }}>{result === null ? t("loading") : t(`trust.${result}`)}</span>
        <button class="little" onClick={look}>{t("trust.again")}</button>
      </p>
      <div class="stack">
        <Card title={t("trust.ca")}>
          <div class="prose">
            <p class="soft">{t("trust.ca.text")}</p>
            <Segments label={t("trust.platform")} chosen={platform} choose={setPlatform}
              values={PLATFORMS.map((one) => [one, t(`platform.${one}`)] as const)} />
            <ol>
              {Array.from({ length: STEPS[platform] }, (_, i) => <li key={i}>{t(`trust.${platform}.${i + 1}` as Key)}</li>)}
            </ol>
            <p><a class="button" href="/ca.crt" download>{t("trust.ca.get")}</a></p>
            <Qr text={ca} label={ca} />
            <p class="mono soft">{ca}</p>
            {print && <p class="small">{t("trust.fingerprint")}<br /><span class="mono">{print}</span></p>}
          </div>
        </Card>
        <Card title={t("trust.domain")}>
          <div class="prose">
            <p class="soft">{t("trust.domain.text")}</p>
            <ol><li>{t("trust.domain.1")}</li><li>{t("trust.domain.2")}</li><li>{t("trust.domain.3")}</li></ol>
            <pre>{"[https]\ncertificate = \"/etc/letsencrypt/live/greenhouse.example.org/fullchain.pem\"\nkey = \"/etc/letsencrypt/live/greenhouse.example.org/privkey.pem\""}</pre>
          </div>
        </Card>
        <Card title={t("trust.localhost")}>
          <div class="prose">
            <p class="soft">{t("trust.localhost.text")}</p>
            <pre>{"[https]\nlocal = \"127.0.0.1:8442\""}</pre>
          </div>
        </Card>
      </div>
    </>
  );
}

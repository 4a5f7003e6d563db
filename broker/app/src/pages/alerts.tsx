// Alerts: what is raised, what somebody has seen to, and what is over.
//
// Rule: open ones come from the live state; what is over is fetched when it is asked for.

import { useState } from "preact/hooks";

import { get } from "../api";
import { useCell } from "../cell";
import type { Alert } from "../contract";
import { alerts } from "../live";
import { t } from "../words";
import { Card, Fetched, Head, Segments, useLoad } from "../ui/parts";
import { AlertItem } from "./device";

export function Alerts() {
  const [over, setOver] = useState<"open" | "over">("open");
  const open = useCell(alerts).filter((alert) => alert.state !== "cleared");
  return (
    <>
      <Head title={t("alerts")}>
        <Segments label={t("alerts")} chosen={over} choose={setOver}
          values={[["open", t("alerts.open")], ["over", t("alerts.over")]]} />
      </Head>
      {over === "over" ? <Past /> : (
        <Card>
          {open.length === 0
            ? <p class="soft">{t("alerts.none")}</p>
            : <ul class="list">{open.map((alert) => <AlertItem key={alert.id} alert={alert} linked />)}</ul>}
        </Card>
      )}
    </>
  );
}

function Past() {
  const past = useLoad((signal) => get<{ alerts: Alert[] }>("/alerts?state=cleared&limit=100", { signal }), []);
  return (
    <Card>
      <Fetched from={past} empty={(found) => found.alerts.length === 0 && t("alerts.none-over")}>
        {(found) => <ul class="list">{found.alerts.map((alert) => <AlertItem key={alert.id} alert={alert} linked />)}</ul>}
      </Fetched>
    </Card>
  );
}

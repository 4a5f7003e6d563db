// Sends a command and shows on its way what is true of it: sent, accepted, done, refused (why), no answer.
//
// Rule: what is shown is what `order.ts` makes of the node's words; nothing is called done that was merely sent.

import { useEffect, useRef, useState } from "preact/hooks";

import { Problem, call } from "../api";
import type { Outcome } from "../contract";
import { acks } from "../live";
import { type Order, type Stage, begun, ended, failed, heard, settled } from "../order";
import { named, said, t } from "../words";
import { problemText } from "./parts";

export interface Ordering {
  order: Order | null;
  busy: boolean;
  give: (command: string, args: Record<string, unknown>, stepUp?: string) => Promise<Order>;
  clear: () => void;
}

/** One command at a time to this device. */
export function useOrder(device: string): Ordering {
  const [order, setOrder] = useState<Order | null>(null);
  const current = useRef<Order | null>(null);
  const put = (next: Order | null): void => {
    current.current = next;
    setOrder(next);
  };
  useEffect(() => acks.follow(() => {
    if (current.current && acks.value) put(heard(current.current, acks.value));
  }), [device]);
  useEffect(() => put(null), [device]);

  const give: Ordering["give"] = async (command, args, stepUp) => {
    const mine = begun(device, command);
    put(mine);
    const finish = (change: (order: Order) => Order): Order => {
      const next = change(current.current ?? mine);
      put(next);
      return next;
    };
    try {
      const body = { command, args, ...(stepUp ? { step_up: stepUp } : {}) };
      const outcome = await call<Outcome>("POST", `/devices/${encodeURIComponent(device)}/commands`, body);
      return finish((order) => settled(order, outcome));
    } catch (error) {
      if (error instanceof Problem && typeof error.body["outcome"] === "string") {
        return finish((order) => settled(order, error.body as unknown as Outcome));
      }
      const code = error instanceof Problem ? error.code : "";
      return finish((order) => failed(order, code, problemText(error)));
    }
  };
  return { order, busy: order !== null && !ended(order), give, clear: () => put(null) };
}

const REACHED: Record<Stage, number> = { sent: 1, accepted: 2, done: 3, refused: 2, silent: 1, failed: 1 };

export function OrderLine({ order }: { order: Order | null }) {
  if (!order) return <div class="order" role="status" aria-live="polite" />;
  const reached = REACHED[order.stage];
  const why = order.why;
  return (
    <div class="order" role="status" aria-live="polite" data-stage={order.stage}>
      <ol class={`steps ${order.stage}`} aria-hidden="true">
        {[1, 2, 3].map((n) => <li key={n} class={n <= reached ? "on" : n === reached + 1 && !ended(order) ? "next" : ""} />)}
      </ol>
      <strong>{named("command", order.command)}: {t(`stage.${order.stage}`)}</strong>
      {why && <span class="soft" title={why}>{refusal(why)}{order.stage === "silent" && t("stop")}</span>}
      {order.stage === "silent" && <span class="soft">{t("stage.silent.more")}</span>}
    </div>
  );
}

/** A reason begins with a word that we know; the rest is a sentence of the node. */
function refusal(why: string): string {
  const [, lead, rest] = /^(malformed|range|expired|retained|unknown|busy|unsafe|replay|bad_sig)\b(?:: )?(.*)$/.exec(why) ?? [];
  if (lead === undefined) return said(why);
  const more = said(rest ?? "");
  return `${named("why", lead)} (${more === rest ? why : more})`;
}

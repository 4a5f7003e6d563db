// One command on its way, as a person may be told of it: sent, accepted, done, refused (why), no answer.
//
// Rule: pure, and honest. Only the node's own word makes an order accepted, done or refused; an HTTP answer or the lack
// of one never does. Once it has ended nothing changes it any more.

import type { Ack, Outcome } from "./contract";

export type Stage = "sent" | "accepted" | "done" | "refused" | "silent" | "failed";

export interface Order {
  command: string;
  device: string;
  stage: Stage;
  /** The node's reason or the gateway's words, as they came. */
  why: string;
  /** What the gateway's problem was, where there was one: `forbidden`, `no_connection`, … */
  code: string;
}

export const begun = (device: string, command: string): Order => ({ command, device, stage: "sent", why: "", code: "" });

export const ended = (order: Order): boolean => order.stage !== "sent" && order.stage !== "accepted";

/** After the node's acknowledgement came over the live stream: only that it accepted counts, the rest comes with the outcome. */
export function heard(order: Order, ack: Ack): Order {
  const ours = ack.device === order.device && ack.cmd === order.command;
  return ours && order.stage === "sent" && ack.stage === "accepted" ? { ...order, stage: "accepted" } : order;
}

/** After the gateway's answer to the request. */
export function settled(order: Order, outcome: Outcome): Order {
  if (ended(order)) return order;
  const why = outcome.why ?? "";
  if (outcome.outcome === "done") return { ...order, stage: "done", why };
  if (outcome.outcome === "rejected") return { ...order, stage: "refused", why };
  return { ...order, stage: "silent", why: outcome.detail ?? why };
}

/** After a request that never became a command: no right to, no connection, no step-up. */
export function failed(order: Order, code: string, why: string): Order {
  return ended(order) ? order : { ...order, stage: "failed", code, why };
}

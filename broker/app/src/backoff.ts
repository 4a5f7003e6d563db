// How long to wait before the next attempt: longer each time, and never all at once.
//
// Rule: pure; chance is an argument.

export const BASE_S = 1;
export const CAP_S = 15;

/** Seconds before attempt number `attempt` (from 0): between half and all of a time that doubles up to CAP_S. */
export function wait(attempt: number, chance: number): number {
  const most = Math.min(CAP_S, BASE_S * 2 ** Math.min(attempt, 16));
  return most / 2 + (most / 2) * chance;
}

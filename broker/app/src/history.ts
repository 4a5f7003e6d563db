// History as the gateway gives it, brought into the columns that a chart draws.
//
// Rule: pure. A step for which there is no point is null, so that a time without measurements stays a gap.

import type { Series } from "./contract";

/** Times, heater (0 to 1), least, most, mean temperature, set point, as they are drawn one over the other; columns of one length, by time. */
export type Columns = [number[], ...(number | null)[][]];

export function align(series: readonly Series[]): Columns {
  const of = (quantity: string) => series.find((one) => one.quantity === quantity)?.points ?? [];
  const temperature = of("temperature");
  const step = series.find(({ quantity }) => quantity === "temperature")?.step_s ?? 0;
  const times = new Set<number>();
  for (const one of series) for (const [ts] of one.points) times.add(ts);
  // Behind the last point before a gap comes an empty one, at which the line ends.
  if (step) temperature.forEach(([ts], i) => (temperature[i + 1]?.[0] ?? Infinity) - ts > 2.5 * step && times.add(ts + step));
  const sorted = [...times].sort((a, b) => a - b);
  const column = (quantity: string, which: 1 | 2 | 3): (number | null)[] => {
    const found = new Map(of(quantity).map((point) => [point[0], point[which]]));
    return sorted.map((ts) => found.get(ts) ?? null);
  };
  return [
    sorted, column("heater", 1),
    column("temperature", 2), column("temperature", 3), column("temperature", 1), held(column("setpoint", 1)),
  ];
}

/** A set point holds until there is another. */
function held(values: (number | null)[]): (number | null)[] {
  let last: number | null = null;
  return values.map((value) => (last = value ?? last));
}

/** Seconds that a chart shows at least. */
const LEAST_S = 900;

/** Where a chart begins: not long before there was anything (`first`), as in a house that is new. */
export function begin(first: number | null, from: number, to: number): number {
  return Math.max(from, Math.min(first ?? to, to - LEAST_S));
}

export interface Summary {
  least: number;
  most: number;
  mean: number;
  count: number;
}

export function summary(series: Series | undefined): Summary | null {
  const points = series?.points ?? [];
  if (!points.length) return null;
  let least = Infinity;
  let most = -Infinity;
  let sum = 0;
  let count = 0;
  for (const [, mean, low, high, n] of points) {
    least = Math.min(least, low);
    most = Math.max(most, high);
    sum += mean * n;
    count += n;
  }
  return { least, most, mean: sum / count, count };
}

// Where a vehicle has been, as a drawing in metres: no map, no internet.
//
// Rule: pure. North is up; on a piece of ground as small as this the earth is flat.

import type { Series } from "./contract";
import { numeric } from "./fleet";

export interface Fix {
  lat: number;
  lon: number;
}

export interface Sketch {
  /** In a box of 400 by 300, the last one is where the vehicle is. */
  path: { x: number; y: number }[];
  /** Metres that `bar` of the box's width stand for. */
  scale: number;
  bar: number;
}

export const WIDTH = 400;
export const HEIGHT = 300;
const MARGIN = 46;
/** Metres of ground that are shown at least, so that a parked car's jitter is no journey. */
const LEAST_M = 120;
const DEGREE_M = 111_320;

export function sketch(fixes: readonly Fix[]): Sketch | null {
  const here = fixes.at(-1);
  if (!here) return null;
  const east = DEGREE_M * Math.cos((here.lat * Math.PI) / 180);
  const metres = fixes.map(({ lat, lon }) => ({ x: (lon - here.lon) * east, y: (here.lat - lat) * DEGREE_M }));
  const xs = metres.map(({ x }) => x);
  const ys = metres.map(({ y }) => y);
  const middle = { x: (Math.min(...xs) + Math.max(...xs)) / 2, y: (Math.min(...ys) + Math.max(...ys)) / 2 };
  const spanX = Math.max(LEAST_M, Math.max(...xs) - Math.min(...xs));
  const spanY = Math.max(LEAST_M, Math.max(...ys) - Math.min(...ys));
  const factor = Math.min((WIDTH - 2 * MARGIN) / spanX, (HEIGHT - 2 * MARGIN) / spanY);
  const scale = round(90 / factor);
  return {
    path: metres.map(({ x, y }) => ({ x: WIDTH / 2 + (x - middle.x) * factor, y: HEIGHT / 2 + (y - middle.y) * factor })),
    scale,
    bar: scale * factor,
  };
}

/** The round number (1, 2, 5 times a power of ten) at or below this one. */
function round(metres: number): number {
  const power = 10 ** Math.floor(Math.log10(metres));
  return ([5, 2, 1].find((digit) => digit * power <= metres) ?? 1) * power;
}

/** A place on the globe, or none. */
export function place(lat: unknown, lon: unknown): Fix | { lat: null; lon: null } {
  const [north, east] = [numeric(lat), numeric(lon)];
  const there = north !== null && east !== null && Math.abs(north) <= 90 && Math.abs(east) <= 180;
  return there ? { lat: north, lon: east } : { lat: null, lon: null };
}

/** Metres between two places. */
export function distance(a: Fix, b: Fix): number {
  return Math.hypot((a.lat - b.lat) * DEGREE_M, (a.lon - b.lon) * DEGREE_M * Math.cos((a.lat * Math.PI) / 180));
}

/** The places in the history of latitude and longitude, in order of time; only those of which both are known. */
export function track(series: readonly Series[]): Fix[] {
  const of = (quantity: string) => series.find((one) => one.quantity === quantity)?.points ?? [];
  const lons = new Map(of("longitude").map(([ts, mean]) => [ts, mean]));
  return of("latitude").flatMap(([ts, lat]) => {
    const lon = lons.get(ts);
    const found = place(lat, lon);
    return found.lat === null ? [] : [found];
  });
}

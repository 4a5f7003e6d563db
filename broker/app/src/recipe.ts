// Crop recipes: which season counts today, and what time of day a point of its curve has.
//
// Rule: pure; the day is an argument.

import type { Season } from "./contract";

/** Minutes since midnight of `06:30`. */
export function minutes(at: string): number {
  const [hours, rest] = at.split(":").map(Number);
  return (hours ?? 0) * 60 + (rest ?? 0);
}

/** The season in force on this day: the last one that has begun, or the last of the year before. */
export function season(seasons: readonly Season[], today: Date): Season | undefined {
  const day = `${String(today.getMonth() + 1).padStart(2, "0")}-${String(today.getDate()).padStart(2, "0")}`;
  const ordered = [...seasons].sort((a, b) => a.from.localeCompare(b.from));
  return ordered.filter(({ from }) => from <= day).at(-1) ?? ordered.at(-1);
}

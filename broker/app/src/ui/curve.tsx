// A day's set points as a line of steps, for the season that counts today.
//
// Rule: a picture with words: the same points stand in its label.

import type { Recipe } from "../contract";
import { minutes, season } from "../recipe";
import { number, t } from "../words";

export function Curve({ recipe, today = new Date() }: { recipe: Recipe; today?: Date }) {
  const curve = [...(season(recipe.seasons, today)?.curve ?? [])].sort((a, b) => minutes(a.at) - minutes(b.at));
  if (!curve.length) return null;
  const values = curve.map(({ setpoint }) => setpoint);
  const low = Math.min(...values) - 2;
  const high = Math.max(...values) + 2;
  const y = (value: number): number => 84 - ((value - low) / (high - low)) * 68;
  let path = `M0 ${y(curve.at(-1)!.setpoint)}`;
  for (const { at, setpoint } of curve) path += `H${minutes(at) / 4}V${y(setpoint)}`;
  return (
    <svg class="curve" viewBox="0 0 360 92" preserveAspectRatio="none" role="img"
      aria-label={curve.map(({ at, setpoint }) => t("curve.point", { at, value: number(setpoint) })).join(", ")}>
      <path d={`${path}H360V92H0Z`} fill="var(--leaf-wash)" />
      <path d={`${path}H360`} fill="none" stroke="var(--leaf)" stroke-width="2" vector-effect="non-scaling-stroke" />
    </svg>
  );
}

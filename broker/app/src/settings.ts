// What a person has chosen on this phone: language and light.
//
// Rule: kept in this browser only; without a choice the phone's own settings count.

import { Cell } from "./cell";

export type Language = "en" | "zh";
export type Theme = "auto" | "light" | "dark";

function chosen<T extends string>(key: string, values: readonly T[], otherwise: T): T {
  const found = localStorage.getItem(key) as T | null;
  return found !== null && values.includes(found) ? found : otherwise;
}

export const theme = new Cell<Theme>(chosen("peanut.theme", ["auto", "light", "dark"], "auto"));
export const language = new Cell<Language>(
  chosen("peanut.language", ["en", "zh"], navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"),
);

export function chooseTheme(value: Theme): void {
  localStorage.setItem("peanut.theme", value);
  theme.set(value);
  wear();
}

export function chooseLanguage(value: Language): void {
  localStorage.setItem("peanut.language", value);
  language.set(value);
}

/** Puts the chosen theme on the page. */
export function wear(): void {
  if (theme.value === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
}

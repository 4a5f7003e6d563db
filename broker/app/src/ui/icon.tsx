// The app's pictograms: strokes of one weight on a square of 24.
//
// Rule: they only go with words; a screen reader is told nothing of them.

const PATHS = {
  greenhouse: "M3 21V10l9-7 9 7v11M3 21h18M12 3v18M3 12.5h18M7.5 6.5V21M16.5 6.5V21",
  vehicle: "M4 16v3M20 16v3M3 16v-4l2.2-5.4A2 2 0 0 1 7 5.4h10a2 2 0 0 1 1.8 1.2L21 12v4zM3 12h18M7 14h.01M17 14h.01",
  bell: "M6 17V11a6 6 0 0 1 12 0v6l1.5 2h-15zM10 21.5h4",
  layers: "M12 3 3 8l9 5 9-5zM3 12.5l9 5 9-5M3 17l9 5 9-5",
  more: "M4 12a1 1 0 1 0 2 0a1 1 0 1 0-2 0M11 12a1 1 0 1 0 2 0a1 1 0 1 0-2 0M18 12a1 1 0 1 0 2 0a1 1 0 1 0-2 0",
  lock: "M5 11h14v10H5zM8 11V7.5a4 4 0 0 1 8 0V11M12 15v2.5",
  unlock: "M5 11h14v10H5zM8 11V7.5a4 4 0 0 1 7.7-1.6M12 15v2.5",
  power: "M12 3v9M6.5 6.8a8 8 0 1 0 11 0",
  stop: "M7 7h10v10H7z",
  horn: "M4 10v4h3l7 5V5L7 10zM17.5 9a4.5 4.5 0 0 1 0 6M20 6.5a8.5 8.5 0 0 1 0 11",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  next: "m9 5 7 7-7 7",
  back: "m15 5-7 7 7 7",
  user: "M12 12a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM4 21.5c0-4.5 4-6.5 8-6.5s8 2 8 6.5",
  qr: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h2.5v2.5M20 14v6h-6M20 17h-2",
  shield: "M12 3 4.5 6v6c0 5 3.5 8 7.5 9.5 4-1.5 7.5-4.5 7.5-9.5V6zM8.7 12l2.4 2.4 4.4-4.8",
  terminal: "M4 5h16v14H4zM7.5 9.5l3 2.5-3 2.5M13 15h3.5",
  gear: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
  away: "M3 3l18 18M8.5 16.2a5 5 0 0 1 7 0M5.2 12.8A9.6 9.6 0 0 1 9 10.4M12 10a9.6 9.6 0 0 1 6.8 2.8M2.5 9.2A14 14 0 0 1 6 6.9M10.5 5.6a14 14 0 0 1 11 3.6M12 19.5h.01",
  check: "m5 12.5 4.5 4.5L19 7",
  cross: "M6 6l12 12M18 6 6 18",
  share: "M12 15V3.5M7.5 8 12 3.5 16.5 8M5 13v7.5h14V13",
  book: "M5 4h10a4 4 0 0 1 4 4v12H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11",
  list: "M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01",
  flame: "M12 3c.5 4 5.5 6 5.5 11a5.5 5.5 0 0 1-11 0c0-2.5 1.3-3.8 2.5-5 .2 1.5.8 2.3 1.6 2.8C11 9 10.5 6 12 3z",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 22 }: { name: IconName; size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8"
      stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

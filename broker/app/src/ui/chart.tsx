// Temperature, set point and heater over a day, a week or a month, drawn by uPlot, which is loaded with the first chart.
//
// Rule: what was not measured is a gap, and never a line. The picture's label says in words what it shows.

import type uPlot from "uplot";
import { useEffect, useRef, useState } from "preact/hooks";

import { get, request } from "../api";
import { useCell } from "../cell";
import type { Series } from "../contract";
import { align, begin, summary } from "../history";
import { theme } from "../settings";
import { locale, number, t, words } from "../words";
import { Card, Segments, Trouble, useLoad } from "./parts";

const SPANS = { day: 86_400, week: 7 * 86_400, month: 30 * 86_400 } as const;
type Span = keyof typeof SPANS;

/** How often a chart is drawn anew; sooner while there is not even an hour in it. */
const AGAIN_MS = 60_000;
const SOON_MS = 10_000;
const YOUNG_S = 3600;
const HEIGHT = 250;

const path = (device: string): string => `/devices/${encodeURIComponent(device)}`;
const query = (from: number, to: number): string =>
  `quantity=temperature&quantity=setpoint&quantity=heater&from=${from}&to=${to}`;

export function Chart({ device }: { device: string }) {
  const [span, setSpan] = useState<Span>("day");
  const history = useLoad(async (signal) => {
    const to = Math.ceil(Date.now() / 1000);
    const { quantities } = await get<{ quantities: { name: string; first: number }[] }>(`${path(device)}/quantities`, { signal });
    const first = quantities.find(({ name }) => name === "temperature")?.first ?? null;
    const asked = begin(first, to - SPANS[span], to);
    const { series } = await get<{ series: Series[] }>(`${path(device)}/history?${query(asked, to)}`, { signal });
    // What is rolled up by the hour begins with the hour; what is drawn begins with what there is.
    const from = begin(series.find(({ quantity }) => quantity === "temperature")?.points[0]?.[0] ?? null, asked, to);
    return { from, to, series };
  }, [device, span]);
  const young = !history.value || history.value.to - history.value.from < YOUNG_S;
  useEffect(() => {
    const timer = setInterval(history.again, young ? SOON_MS : AGAIN_MS);
    return () => clearInterval(timer);
  }, [young]);
  const drawn = history.value;
  const told = drawn && summary(drawn.series.find(({ quantity }) => quantity === "temperature"));
  const label = told ? t("chart.label", { least: number(told.least), most: number(told.most), mean: number(told.mean) }) : t("chart.none");
  return (
    <Card title={t("history")} aside={
      <Segments label={t("history")} chosen={span} choose={setSpan}
        values={[["day", t("span.day")], ["week", t("span.week")], ["month", t("span.month")]]} />
    }>
      {history.error !== undefined && <Trouble error={history.error} />}
      <div class="chart" role="img" aria-label={label} data-points={told?.count ?? 0}>
        {drawn && told && <Canvas from={drawn.from} to={drawn.to} series={drawn.series} />}
        {drawn && !told && <p class="soft">{t("chart.none")}</p>}
      </div>
      {told && <p class="soft small">{label}</p>}
      <p class="legend">
        <span><i style={{ background: "var(--leaf)" }} />{t("temperature")}</span>
        <span><i style={{ background: "var(--sky)" }} />{t("setpoint")}</span>
        <span><i style={{ background: "var(--amber)" }} />{t("command.heater")}</span>
        <a href={`#/device/${encodeURIComponent(device)}`} onClick={(event) => (event.preventDefault(), void save(device, span))}>
          {t("chart.csv")}
        </a>
      </p>
    </Card>
  );
}

async function save(device: string, span: Span): Promise<void> {
  const to = Math.ceil(Date.now() / 1000);
  const answer = await request("GET", `${path(device)}/history.csv?${query(to - SPANS[span], to)}`);
  const url = URL.createObjectURL(await answer.blob());
  const link = Object.assign(document.createElement("a"), { href: url, download: `${device}-${span}.csv` });
  link.click();
  URL.revokeObjectURL(url);
}

function Canvas({ from, to, series }: { from: number; to: number; series: Series[] }) {
  const place = useRef<HTMLDivElement>(null);
  const chosen = useCell(theme);
  const spoken = useCell(words);
  useEffect(() => {
    let plot: uPlot | undefined;
    let gone = false;
    const watch = new ResizeObserver(() => place.current && plot?.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    void Promise.all([import("uplot"), import("uplot/dist/uPlot.min.css")]).then(([{ default: UPlot }]) => {
      if (gone || !place.current) return;
      plot = new UPlot(options(place.current.clientWidth, from, to), align(series) as uPlot.AlignedData, place.current);
      watch.observe(place.current);
    });
    return () => {
      gone = true;
      watch.disconnect();
      plot?.destroy();
    };
  }, [series, chosen, spoken]);
  return <div ref={place} aria-hidden="true" />;
}

function options(width: number, from: number, to: number): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const hour: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit" };
  const day: Intl.DateTimeFormatOptions = { day: "numeric", month: "numeric" };
  const tick = (value: number): string => new Date(value * 1000).toLocaleString(locale(), to - from > 2 * 86_400 ? day : hour);
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false },
    scales: {
      x: { time: true, range: [from, to] },
      y: { range: (_plot, least, most) => [Math.floor((least ?? 10) - 1.5), Math.ceil((most ?? 20) + 1)] },
      heater: { range: [0, 6] },
    },
    axes: [
      { ...axis, space: 64, values: (_plot, ticks) => ticks.map(tick) },
      { ...axis, size: 42, values: (_plot, ticks) => ticks.map((value) => `${value}°`) },
    ],
    series: [
      {},
      { scale: "heater", fill: `${colour("amber")}55`, width: 0, points: { show: false } },
      { scale: "y", width: 0, points: { show: false } },
      { scale: "y", width: 0, points: { show: false } },
      { scale: "y", stroke: colour("leaf"), width: 2.25, points: { show: false } },
      // On top: a greenhouse that holds its set point would hide it.
      { scale: "y", stroke: colour("sky"), width: 1.5, dash: [6, 4], points: { show: false }, spanGaps: true },
    ],
    bands: [{ series: [3, 2], fill: `${colour("leaf")}26` }],
  };
}

// What the app decides without a browser: what is wrong first, what is true of an order, the stream, the drawings, the words.

import { describe, expect, test } from "vitest";

import { CAP_S, wait } from "../src/backoff";
import type { Alert, Device, Outcome, Series } from "../src/contract";
import { Grade, applied, finding, fleetOf, ranked, setpoint, temperature, withAlert } from "../src/fleet";
import { align, begin, summary } from "../src/history";
import { begun, ended, failed, heard, settled } from "../src/order";
import { season } from "../src/recipe";
import { Parser } from "../src/sse";
import { HEIGHT, WIDTH, distance, sketch, track } from "../src/track";
import { en } from "../src/words/en";
import { plain, sentences, translated } from "../src/words/said";
import table from "../src/words/said.zh.json";
import { zh } from "../src/words/zh";

const device = (name: string, more: Partial<Device> = {}): Device => ({
  name, kind: "greenhouse", root: `/plant/${name}`, presence: "online", presence_why: null, presence_ts: 1, fw: "1", sim: false, groups: [],
  state: { setpoint: 15, temperature: 14 }, state_ts: 1, readings: null, readings_ts: null, faults: [], codes: [], commands: [], step_up: [], ...more,
});
const alert = (id: number, name: string, more: Partial<Alert> = {}): Alert => ({
  id, rule: "r", device: name, severity: "warning", state: "raised", text: "too cold", value: 1, raised: id, acknowledged: null, cleared: null, ...more,
});

describe("the fleet", () => {
  test("what is wrong is on top, then names as people count", () => {
    const fleet = fleetOf([
      device("bed-10"), device("bed-2"), device("away", { presence: "offline" }), device("cold", { faults: ["frost"] }), device("new", { presence: "unknown" }),
      device("warm"),
    ]);
    expect(ranked(fleet, [alert(1, "warm")]).map((row) => row.device.name)).toEqual(["cold", "warm", "away", "new", "bed-2", "bed-10"]);
  });

  test("a critical alert goes before a fault, an acknowledged one does not hide that it is offline", () => {
    const bad = device("a", { faults: ["frost"], presence: "offline" });
    expect(finding(bad, [alert(1, "a", { severity: "critical" })]).what).toBe("alert");
    expect(finding(bad, []).what).toBe("fault");
    const away = device("a", { presence: "offline" });
    expect(finding(away, [alert(1, "a", { severity: "critical", state: "acknowledged" })])).toMatchObject({ what: "offline", grade: Grade.Away });
    expect(finding(device("a"), [alert(1, "a", { state: "cleared" }), alert(2, "b")]).what).toBe("fine");
  });

  test("events change the device they are about, and no other value", () => {
    const fleet = fleetOf([device("a"), device("b")]);
    const next = applied(fleet, [
      { event: "presence", data: { device: "a", presence: "offline", why: "gone", ts: 9 } },
      { event: "state", data: { device: "a", state: { setpoint: 20, faults: ["tank"] }, ts: 10 } },
      { event: "readings", data: { device: "a", readings: { temperature: [19.5, "ok", 1] }, ts: 11, codes: ["P0420"] } },
    ]);
    expect(next.get("a")).toMatchObject({ presence: "offline", presence_why: "gone", faults: ["tank"], readings_ts: 11, codes: ["P0420"] });
    expect(next.get("b")).toBe(fleet.get("b"));
    expect(fleet.get("a")!.presence).toBe("online");
  });

  test("what a node says in another shape than it should breaks nothing", () => {
    for (const odd of [null, 7, "x", [], {}, { toString: "x" }, [null], [{ toString: "x" }], [1e300, 7]] as unknown[]) {
      const said = { temperature: odd, speed: [odd, "ok", odd], fine: [1, "ok", 0] };
      const fleet = fleetOf([device("a", { readings: said as unknown as Device["readings"] })]);
      const next = applied(fleet, [
        { event: "readings", data: { device: "a", readings: odd as never, codes: odd } },
        { event: "readings", data: { device: "a", readings: said as never, codes: [odd, "P0420"] } },
        { event: "state", data: { device: "a", state: { faults: [odd, "frost"], setpoint: odd, temperature: odd } } },
      ]);
      for (const one of [fleet.get("a")!, next.get("a")!]) {
        expect(Object.values(one.readings!).every(([value, quality]) => (value === null || Number.isFinite(value)) && typeof quality === "string")).toBe(true);
        expect(one.readings!["fine"]).toEqual([1, "ok", 0]);
        expect([temperature(one), setpoint(one)].every((value) => value === null || Number.isFinite(value))).toBe(true);
      }
      expect(next.get("a")!.codes.at(-1)).toBe("P0420");
      expect([...next.get("a")!.faults, ...next.get("a")!.codes].every((word) => typeof word === "string")).toBe(true);
    }
  });

  test("what is not about a device that is known changes nothing", () => {
    const fleet = fleetOf([device("a")]);
    expect(applied(fleet, [{ event: "state", data: { device: "x", state: {} } }, { event: "new-kind", data: { device: "a" } }])).toBe(fleet);
  });

  test("a reading that is not good does not count as the temperature", () => {
    expect(temperature(device("a", { readings: { temperature: [99, "crc", 3] } }))).toBe(14);
    expect(temperature(device("a", { readings: { temperature: [16, "ok", 3] } }))).toBe(16);
    expect(temperature(device("a", { state: null }))).toBe(null);
  });

  test("an alert that changes is there once", () => {
    const list = withAlert([alert(2, "a"), alert(1, "a")], alert(1, "a", { state: "acknowledged" }));
    expect(list.map(({ id, state }) => [id, state])).toEqual([[2, "raised"], [1, "acknowledged"]]);
  });
});

describe("an order", () => {
  const outcome = (result: Outcome["outcome"], why: string | null = null): Outcome => ({
    id: "1", device: "a", command: "vent", outcome: result, accepted: true, why, state: null, sent: 1, answered: 2, detail: "online and silent",
  });
  const order = begun("a", "vent");

  test("goes by the node's word only", () => {
    expect(order.stage).toBe("sent");
    expect(heard(order, { device: "a", cmd: "vent", stage: "accepted" }).stage).toBe("accepted");
    expect(heard(order, { device: "b", cmd: "vent", stage: "accepted" })).toBe(order);
    expect(heard(order, { device: "a", cmd: "fan", stage: "accepted" })).toBe(order);
    expect(heard(order, { device: "a", cmd: "vent", stage: "done" })).toBe(order);
  });

  test("ends in one of four ways, with the reason", () => {
    expect(settled(order, outcome("done"))).toMatchObject({ stage: "done", why: "" });
    expect(settled(order, outcome("rejected", "range 2 to 40"))).toMatchObject({ stage: "refused", why: "range 2 to 40" });
    expect(settled(order, outcome("not_answered"))).toMatchObject({ stage: "silent", why: "online and silent" });
    expect(failed(order, "forbidden", "no")).toMatchObject({ stage: "failed", code: "forbidden" });
  });

  test("and what has ended stays as it is", () => {
    const done = settled(order, outcome("done"));
    expect(ended(done)).toBe(true);
    expect(settled(done, outcome("rejected"))).toBe(done);
    expect(failed(done, "x", "y")).toBe(done);
    expect(heard(done, { device: "a", cmd: "vent", stage: "accepted" })).toBe(done);
  });
});

describe("the stream", () => {
  const TEXT = ": hello\n\nevent: state\ndata: {\"a\":\ndata: 1}\n\nevent: x\r\ndata:温室\r\n\r\ndata: last\n\nevent: none\n\nretry: 9\n\n";
  const WANTED = [{ event: "state", data: "{\"a\":\n1}" }, { event: "x", data: "温室" }, { event: "message", data: "last" }];

  test.each([1, 2, 3, 5, 1000])("in pieces of %i bytes", (size) => {
    const parser = new Parser();
    const bytes = new TextEncoder().encode(TEXT);
    const found = [];
    for (let at = 0; at < bytes.length; at += size) found.push(...parser.feed(bytes.slice(at, at + size)));
    expect(found).toEqual(WANTED);
  });
});

test("attempts come later and later, and never all at once", () => {
  expect(wait(0, 0)).toBe(0.5);
  expect(wait(0, 1)).toBe(1);
  expect(wait(3, 1)).toBe(8);
  expect(wait(1000, 1)).toBe(CAP_S);
  expect(wait(1000, 0)).toBe(CAP_S / 2);
});

describe("history", () => {
  const series = (quantity: string, points: Series["points"]): Series => ({ device: "a", quantity, unit: "", step_s: 10, points });

  test("columns of one length; a gap is a gap, a set point holds", () => {
    const [times, heater, least, most, mean, setpoint] = align([
      series("temperature", [[0, 5, 4, 6, 1], [10, 6, 6, 6, 1], [100, 7, 7, 7, 1]]),
      series("setpoint", [[0, 15, 15, 15, 1]]), series("heater", [[10, 0.5, 0, 1, 2]]),
    ]);
    expect(times).toEqual([0, 10, 20, 100, 110].slice(0, times.length));
    expect(mean!.slice(0, 4)).toEqual([5, 6, null, 7]);
    expect(least![0]).toBe(4);
    expect(most![0]).toBe(6);
    expect(setpoint!.every((value) => value === 15)).toBe(true);
    expect(heater![1]).toBe(0.5);
  });

  test("a chart of a new house begins with its first measurement", () => {
    expect(begin(90_000, 10_000, 100_000)).toBe(90_000);
    expect(begin(90_000, 95_000, 100_000)).toBe(95_000);
    expect(begin(99_990, 10_000, 100_000)).toBe(99_100);
    expect(begin(null, 10_000, 100_000)).toBe(99_100);
  });

  test("the mean counts how often was measured", () => {
    expect(summary(series("temperature", [[0, 10, 8, 12, 3], [10, 20, 20, 20, 1]]))).toEqual({ least: 8, most: 20, mean: 12.5, count: 4 });
    expect(summary(series("temperature", []))).toBe(null);
  });
});

describe("the sketch", () => {
  const home = { lat: 48.1, lon: 11.5 };

  test("fits into its box, north up", () => {
    const drawn = sketch([home, { lat: 48.12, lon: 11.5 }, { lat: 48.12, lon: 11.56 }])!;
    for (const { x, y } of drawn.path) {
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x).toBeLessThanOrEqual(WIDTH);
      expect(y).toBeGreaterThanOrEqual(0);
      expect(y).toBeLessThanOrEqual(HEIGHT);
    }
    expect(drawn.path[1]!.y).toBeLessThan(drawn.path[0]!.y);
    expect(drawn.path[2]!.x).toBeGreaterThan(drawn.path[1]!.x);
  });

  test("its bar is as long as it says", () => {
    const other = { lat: 48.11, lon: 11.5 };
    const drawn = sketch([home, other])!;
    const pixels = Math.hypot(drawn.path[1]!.x - drawn.path[0]!.x, drawn.path[1]!.y - drawn.path[0]!.y);
    expect((pixels / drawn.bar) * drawn.scale).toBeCloseTo(distance(home, other), 3);
  });

  test("history gives the places of which both figures are known", () => {
    const series = (quantity: string, points: [number, number][]): Series => ({
      device: "a", quantity, unit: "", step_s: 10, points: points.map(([ts, value]) => [ts, value, value, value, 1]),
    });
    expect(track([series("latitude", [[0, 48], [10, 49], [20, 50]]), series("longitude", [[10, 11], [20, 12]])])).toEqual([
      { lat: 49, lon: 11 }, { lat: 50, lon: 12 },
    ]);
    expect(track([])).toEqual([]);
    expect(track([series("latitude", [[0, 1e300], [10, 91]]), series("longitude", [[0, 11], [10, 12]])])).toEqual([]);
  });

  test("a parked car stands in the middle", () => {
    expect(sketch([home])!.path).toEqual([{ x: WIDTH / 2, y: HEIGHT / 2 }]);
    expect(sketch([])).toBe(null);
  });
});

test("the season that has begun last counts, also over the new year", () => {
  const seasons = [{ from: "03-01", curve: [] }, { from: "10-15", curve: [] }];
  expect(season(seasons, new Date(2026, 6, 1))!.from).toBe("03-01");
  expect(season(seasons, new Date(2026, 9, 15))!.from).toBe("10-15");
  expect(season(seasons, new Date(2026, 0, 5))!.from).toBe("10-15");
});

test("both languages say the same things with the same values", () => {
  const holes = (text: string): string[] => [...text.matchAll(/\{\w+\}/g)].map(String).sort();
  expect(Object.keys(zh).sort()).toEqual(Object.keys(en).sort());
  for (const [key, text] of Object.entries(en)) expect(holes(zh[key as keyof typeof en]), key).toEqual(holes(text));
});

describe("what nodes and the gateway say in English", () => {
  const known = sentences(table);

  test.each([
    ["holding: 14.7, set point 15.0", "保持"],
    ["too cold: -3.5, schedule 5.0; heater waits for vent; fan on by order", "太冷；加热等待通风窗；风扇按命令开"],
    ["heating: 12.0, fallback 15.0; vent stays open for 30 s", "加热中；通风窗保持打开 30 秒"],
    ["heater off: sensor silent for 300 s", "加热已关闭：传感器已 300 秒无读数"],
    ["overheat: above 45, so heater off and vent open", "过热：高于 45 °C，加热已关闭，通风窗已打开"],
    ["unlock by command", "按命令开锁"],
    ["remote start ended: the brake was pressed", "远程启动已结束：踩下了刹车"],
    ["ambient temperature -31 C", "环境温度-31 °C"],
    ["parked is not known", "驻车未知"],
    ["temperature is 15.76, above 1", "温度为 15.76，高于 1"],
    ["temperature is 3.1, below 5 for 5 min", "温度为 3.1，低于 5，已持续 5 分钟"],
    ["temperature has fallen by 4.2 within 30 min, to 9", "温度在 30 分钟内下降 4.2，到 9"],
    ["nothing heard for 2 days", "已 2 天没有消息"],
    ["nothing heard since the gateway has begun", "网关启动以来没有消息"],
    ["the heater has been on for 3 h, from 9 to 9.2", "加热已开 3 小时，温度从 9 到 9.2"],
  ])("%s", (text, wanted) => expect(translated(plain(text), known)).toBe(wanted));

  test("what is not known is shown as it came, and so is everything in English", () => {
    expect(translated("made of (something) new: 7", known)).toBe("made of (something) new: 7");
    expect(translated("unlock by command", [])).toBe("unlock by command");
    expect(plain("holding: 14.7, set point 15.0; heater off by order")).toBe("holding; heater off by order");
    expect(plain("heater off: sensor silent for 300 s")).toBe("heater off: sensor silent for 300 s");
  });
});

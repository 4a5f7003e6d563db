// The console's codec against the protocol vectors that every codec of the project reads (tests/vectors).

import { expect, test } from "vitest";

import * as codec from "../src/mqtt/codec";

interface Vector {
  name: string;
  version: number;
  from: string;
  hex: string;
  error?: string;
  packet?: Record<string, unknown> & { type: string };
}

const files = import.meta.glob<Vector[]>("../../../tests/vectors/*.json", { eager: true, import: "default" });
const vectors = Object.values(files).flat();
const hexOf = (data: Uint8Array): string => [...data].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const bytes = (hex: string): codec.Bytes => Uint8Array.from(hex.replace(/\s/g, "").match(/../g) ?? [], (two) => parseInt(two, 16));
const KINDS: Record<string, string> = { CONNACK: "connack", PUBLISH: "publish", SUBACK: "suback", PUBACK: "puback", PINGRESP: "pingresp", DISCONNECT: "disconnect" };
const fromServer = vectors.filter(({ version, from, packet }) =>
  version === 5 && (from === "server" || packet?.type === "PUBACK") && packet && packet.type in KINDS && Number(packet["qos"] ?? 0) < 2);

test("there are vectors for each packet that a server sends", () => {
  expect(new Set(fromServer.map(({ packet }) => packet!.type))).toEqual(new Set(Object.keys(KINDS)));
});

test.each(fromServer)("reads $name", ({ hex, packet }) => {
  const [read, ...more] = new codec.Decoder().feed(bytes(hex));
  expect(more).toEqual([]);
  expect(read!.kind).toBe(KINDS[packet!.type]);
  if (read!.kind === "publish") {
    expect(read!.topic).toBe(packet!["topic"]);
    expect(hexOf(read!.payload)).toBe(packet!["payload"]);
    expect(read!.retain).toBe(packet!["retain"]);
  }
  if (read!.kind === "connack" || read!.kind === "disconnect") expect(read!.code).toBe(packet!["reason"]);
  if (read!.kind === "suback") expect(read!.codes).toEqual(packet!["reasons"]);
});

test("writes what the vectors have", () => {
  const find = (name: string): string => vectors.find((one) => one.name === name)!.hex.replace(/\s/g, "").toLowerCase();
  expect(hexOf(codec.PINGREQ)).toBe(find("pingreq-v4"));
  expect(hexOf(codec.DISCONNECT)).toBe(find("disconnect-v4"));
  expect(hexOf(codec.publish("a/b", "hello", 1, false, 7))).toBe("320d0003612f62" + "0007" + "00" + "68656c6c6f");
  expect(hexOf(codec.subscribe(1, "a/b", 1))).toBe("8209" + "0001" + "00" + "0003612f62" + "01");
  expect(hexOf(codec.connect("p", "", "x", 60))).toBe("1011" + "00044d515454" + "05" + "42" + "003c" + "00" + "000170" + "000178");
});

test.each([[0, "00"], [127, "7f"], [128, "8001"], [16383, "ff7f"], [16384, "808001"], [268435455, "ffffff7f"]])(
  "a length of %i is %s", (value, hex) => {
    expect(hexOf(Uint8Array.from(codec.varint(value)))).toBe(hex);
  });

test("a stream may come in any pieces", () => {
  const stream = bytes(fromServer.map(({ hex }) => hex).join(""));
  const whole = new codec.Decoder().feed(stream);
  for (const size of [1, 2, 3, 7, 61]) {
    const decoder = new codec.Decoder();
    const found: codec.Packet[] = [];
    for (let at = 0; at < stream.length; at += size) found.push(...decoder.feed(stream.slice(at, at + size)));
    expect(found).toEqual(whole);
  }
});

test.each([
  ["five bytes of length", "30ffffffffff01"], ["a topic that ends too soon", "30030004" + "61"], ["no UTF-8", "30040001ff00"],
  ["an unknown property", "3006000161027f00"], ["a packet of a client", "c000"],
])("refuses %s", (_what, hex) => {
  expect(() => new codec.Decoder().feed(bytes(hex))).toThrow(codec.Malformed);
});

test("refuses what is beyond the limit before it has come", () => {
  expect(() => new codec.Decoder(100).feed(bytes("30e807"))).toThrow(/limit/);
});

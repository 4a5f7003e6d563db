// MQTT 5.0 in bytes, as much of it as the console needs: QoS 0 and 1, no properties of its own but the session's end.
//
// Rule: bytes in, packets out, no sockets and no clock. Whatever does not fit the standard is a `Malformed`.

export class Malformed extends Error {}

export type Packet =
  | { kind: "connack"; code: number; reason: string }
  | { kind: "publish"; topic: string; payload: Uint8Array; qos: number; retain: boolean; id: number }
  | { kind: "puback"; id: number; code: number }
  | { kind: "suback"; id: number; codes: number[] }
  | { kind: "pingresp" }
  | { kind: "disconnect"; code: number; reason: string };

const TEXT = new TextEncoder();
const REASON_STRING = 0x1f;

/** Bytes of one value of each property type that a server may send, -1 for a length in front, -2 for two of those. */
const PROPERTY_SIZE: Record<number, number> = {
  0x01: 1, 0x02: 4, 0x03: -1, 0x08: -1, 0x09: -1, 0x0b: -3, 0x11: 4, 0x12: -1, 0x13: 2, 0x15: -1, 0x16: -1, 0x1a: -1,
  0x1c: -1, 0x1f: -1, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x26: -2, 0x27: 4, 0x28: 1, 0x29: 1, 0x2a: 1,
};

function text(value: string): number[] {
  const bytes = TEXT.encode(value);
  if (bytes.length > 0xffff) throw new Malformed("a text of more than 65535 bytes");
  return [bytes.length >> 8, bytes.length & 0xff, ...bytes];
}

/** A variable byte integer (5.0 §1.5.5). */
export function varint(value: number): number[] {
  const out: number[] = [];
  do {
    const digit = value % 128;
    value = Math.floor(value / 128);
    out.push(value > 0 ? digit | 0x80 : digit);
  } while (value > 0);
  return out;
}

/** Bytes to be sent. */
export type Bytes = Uint8Array<ArrayBuffer>;

function packet(first: number, body: ArrayLike<number>): Bytes {
  const length = varint(body.length);
  const out = new Uint8Array(1 + length.length + body.length);
  out[0] = first;
  out.set(length, 1);
  out.set(body, 1 + length.length);
  return out;
}

/** §3.1: a clean start whose session ends with the connection. `user` and `password` may be empty. */
export function connect(clientId: string, user: string, password: string, keepAlive: number): Bytes {
  const flags = 0x02 | (user ? 0x80 : 0) | (password ? 0x40 : 0);
  return packet(0x10, [
    ...text("MQTT"), 5, flags, keepAlive >> 8, keepAlive & 0xff, 0, ...text(clientId),
    ...(user ? text(user) : []), ...(password ? text(password) : []),
  ]);
}

/** §3.8. */
export function subscribe(id: number, filter: string, qos: 0 | 1): Bytes {
  return packet(0x82, [id >> 8, id & 0xff, 0, ...text(filter), qos]);
}

/** §3.3; `id` counts with QoS 1 only. */
export function publish(topic: string, payload: string, qos: 0 | 1, retain: boolean, id: number): Bytes {
  const number = qos ? [id >> 8, id & 0xff] : [];
  return packet(0x30 | (qos << 1) | (retain ? 1 : 0), [...text(topic), ...number, 0, ...TEXT.encode(payload)]);
}

/** §3.4. */
export function puback(id: number): Bytes {
  return packet(0x40, [id >> 8, id & 0xff]);
}

export const PINGREQ = Uint8Array.of(0xc0, 0);
export const DISCONNECT = Uint8Array.of(0xe0, 0);

/** A view of one packet's body. */
class Reader {
  #at = 0;
  readonly #view: Uint8Array;

  constructor(view: Uint8Array) {
    this.#view = view;
  }

  get left(): number {
    return this.#view.length - this.#at;
  }

  byte(): number {
    const value = this.#view[this.#at];
    if (value === undefined) throw new Malformed("a packet that ends too soon");
    this.#at += 1;
    return value;
  }

  word(): number {
    return this.byte() * 256 + this.byte();
  }

  bytes(count: number): Uint8Array {
    if (count > this.left) throw new Malformed("a packet that ends too soon");
    this.#at += count;
    return this.#view.subarray(this.#at - count, this.#at);
  }

  text(): string {
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.bytes(this.word()));
    } catch (error) {
      throw error instanceof Malformed ? error : new Malformed("a text that is not UTF-8");
    }
  }

  varint(): number {
    let value = 0;
    for (let shift = 0; shift < 4; shift += 1) {
      const digit = this.byte();
      value += (digit & 0x7f) * 128 ** shift;
      if (digit < 0x80) return value;
    }
    throw new Malformed("a length of more than four bytes");
  }

  /** Passes the properties by; the reason string, if there is one. */
  properties(): string {
    const inner = new Reader(this.bytes(this.varint()));
    let reason = "";
    while (inner.left) {
      const kind = inner.byte();
      const size = PROPERTY_SIZE[kind];
      if (size === undefined) throw new Malformed("an unknown property");
      if (kind === REASON_STRING) reason = inner.text();
      else if (size === -3) inner.varint();
      else if (size === -2) inner.bytes(inner.word()), inner.bytes(inner.word());
      else inner.bytes(size === -1 ? inner.word() : size);
    }
    return reason;
  }
}

function parse(first: number, body: Uint8Array): Packet {
  const reader = new Reader(body);
  const flags = first & 0x0f;
  switch (first >> 4) {
    case 2: {
      reader.byte();
      return { kind: "connack", code: reader.byte(), reason: reader.left ? reader.properties() : "" };
    }
    case 3: {
      const qos = (flags >> 1) & 3;
      if (qos > 1) throw new Malformed("a QoS that was not asked for");
      const topic = reader.text();
      const id = qos ? reader.word() : 0;
      reader.properties();
      return { kind: "publish", topic, payload: reader.bytes(reader.left), qos, retain: (flags & 1) === 1, id };
    }
    case 4:
      return { kind: "puback", id: reader.word(), code: reader.left ? reader.byte() : 0 };
    case 9: {
      const id = reader.word();
      reader.properties();
      return { kind: "suback", id, codes: [...reader.bytes(reader.left)] };
    }
    case 13:
      return { kind: "pingresp" };
    case 14: {
      const code = reader.left ? reader.byte() : 0;
      return { kind: "disconnect", code, reason: reader.left ? reader.properties() : "" };
    }
    default:
      throw new Malformed(`a packet of type ${first >> 4}`);
  }
}

/** Cuts a stream, in whatever pieces it comes, into packets. */
export class Decoder {
  #rest: Uint8Array = new Uint8Array();
  readonly #limit: number;

  /** `limit`: bytes of the largest packet that is taken. */
  constructor(limit = 1_048_576) {
    this.#limit = limit;
  }

  feed(chunk: Uint8Array): Packet[] {
    const data = new Uint8Array(this.#rest.length + chunk.length);
    data.set(this.#rest);
    data.set(chunk, this.#rest.length);
    const found: Packet[] = [];
    let at = 0;
    for (;;) {
      let length = 0;
      let used = 1;
      let digit = 0x80;
      while (digit >= 0x80 && at + used < data.length) {
        if (used > 4) throw new Malformed("a length of more than four bytes");
        digit = data[at + used] ?? 0;
        length += (digit & 0x7f) * 128 ** (used - 1);
        used += 1;
      }
      if (length > this.#limit) throw new Malformed("a packet beyond the limit");
      if (digit >= 0x80 || at + used + length > data.length) break;
      found.push(parse(data[at] ?? 0, data.subarray(at + used, at + used + length)));
      at += used + length;
    }
    this.#rest = data.slice(at);
    return found;
  }
}

// A small MQTT client over WebSocket, for the console.
//
// Rule: one connection at a time; it says what happens through one callback, and never comes back by itself, since a
// person is at the console.

import * as codec from "./codec";

export type Heard =
  | { kind: "open" }
  | { kind: "closed"; why: string }
  | { kind: "granted"; filter: string; code: number }
  | { kind: "taken"; topic: string; code: number }
  | { kind: "message"; topic: string; payload: Uint8Array; retain: boolean; qos: number };

const KEEP_ALIVE_S = 30;

export class Client {
  readonly #socket: WebSocket;
  readonly #decoder = new codec.Decoder();
  readonly #say: (heard: Heard) => void;
  readonly #waiting = new Map<number, string>();
  #next = 1;
  #timer: ReturnType<typeof setInterval> | undefined;
  #over = false;

  constructor(url: string, user: string, password: string, say: (heard: Heard) => void) {
    this.#say = say;
    this.#socket = new WebSocket(url, ["mqtt"]);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => {
      const id = `app-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
      this.#socket.send(codec.connect(id, user, password, KEEP_ALIVE_S));
      this.#timer = setInterval(() => this.#send(codec.PINGREQ), KEEP_ALIVE_S * 500);
    };
    this.#socket.onmessage = (event: MessageEvent<ArrayBuffer>) => this.#receive(new Uint8Array(event.data));
    this.#socket.onclose = (event) => this.#end(event.reason || (event.code === 1006 ? "no connection" : ""));
  }

  subscribe(filter: string): void {
    this.#send(codec.subscribe(this.#number(filter), filter, 1));
  }

  publish(topic: string, payload: string, retain: boolean): void {
    this.#send(codec.publish(topic, payload, 1, retain, this.#number(topic)));
  }

  close(): void {
    this.#send(codec.DISCONNECT);
    this.#end("");
  }

  #number(what: string): number {
    const id = this.#next;
    this.#next = (id % 0xffff) + 1;
    this.#waiting.set(id, what);
    return id;
  }

  #send(bytes: codec.Bytes): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(bytes);
  }

  #receive(chunk: Uint8Array): void {
    try {
      for (const packet of this.#decoder.feed(chunk)) this.#take(packet);
    } catch (error) {
      this.#end(error instanceof Error ? error.message : String(error));
    }
  }

  #take(packet: codec.Packet): void {
    switch (packet.kind) {
      case "connack":
        if (packet.code === 0) this.#say({ kind: "open" });
        else this.#end(packet.reason || `refused (0x${packet.code.toString(16)})`);
        break;
      case "publish":
        if (packet.qos) this.#send(codec.puback(packet.id));
        this.#say({ ...packet, kind: "message" });
        break;
      case "suback":
        this.#say({ kind: "granted", filter: this.#answered(packet.id), code: packet.codes[0] ?? 0x80 });
        break;
      case "puback":
        this.#say({ kind: "taken", topic: this.#answered(packet.id), code: packet.code });
        break;
      case "disconnect":
        this.#end(packet.reason || `ended by the gateway (0x${packet.code.toString(16)})`);
        break;
      case "pingresp":
    }
  }

  #answered(id: number): string {
    const what = this.#waiting.get(id) ?? "";
    this.#waiting.delete(id);
    return what;
  }

  #end(why: string): void {
    if (this.#over) return;
    this.#over = true;
    clearInterval(this.#timer);
    this.#socket.close();
    this.#say({ kind: "closed", why });
  }
}

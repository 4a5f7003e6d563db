// Server-sent events out of a stream of bytes, in whatever pieces it comes.
//
// Rule: pure, as the standard's section on interpreting an event stream says; a field that is not known is passed by.

export interface Sent {
  event: string;
  data: string;
}

export class Parser {
  readonly #decoder = new TextDecoder();
  #rest = "";
  #event = "";
  #data: string[] = [];

  feed(chunk: Uint8Array): Sent[] {
    this.#rest += this.#decoder.decode(chunk, { stream: true });
    const found: Sent[] = [];
    for (;;) {
      const end = /\r\n|\n|\r(?!$)/.exec(this.#rest);
      if (!end) return found;
      const line = this.#rest.slice(0, end.index);
      this.#rest = this.#rest.slice(end.index + end[0].length);
      if (line === "") {
        if (this.#data.length) found.push({ event: this.#event || "message", data: this.#data.join("\n") });
        this.#event = "";
        this.#data = [];
      } else this.#line(line);
    }
  }

  #line(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
  }
}

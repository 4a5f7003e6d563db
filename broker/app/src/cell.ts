// A value that others may look at and be told about when it changes; and the hook by which a component follows one.
//
// Rule: the state of the app lives in cells, each with one owner that sets it. There is no other store.

import { useEffect, useState } from "preact/hooks";

export class Cell<T> {
  #value: T;
  readonly #listeners = new Set<() => void>();

  constructor(value: T) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Returns what ends it. */
  follow(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** The cell's value; the component is drawn again when it changes. */
export function useCell<T>(cell: Cell<T>): T {
  const [, redraw] = useState(0);
  useEffect(() => {
    // What changed between drawing and this is not missed.
    redraw((n) => n + 1);
    return cell.follow(() => redraw((n) => n + 1));
  }, [cell]);
  return cell.value;
}

// The pieces that pages are made of: what comes up from below, words in a pill, a list that is being fetched, a stepper.
//
// Rule: they know nothing of the fleet. Each says what it does to a screen reader as well.

import type { ComponentChildren, InputHTMLAttributes } from "preact";
import { useCallback, useEffect, useId, useRef, useState } from "preact/hooks";

import { Problem } from "../api";
import { type Key, number, t } from "../words";
import { Icon, type IconName } from "./icon";

export type Tone = "fine" | "warned" | "wrong" | "quiet";

export function Pill({ tone, children }: { tone: Tone; children: ComponentChildren }) {
  return <span class={`pill ${tone}`}>{children}</span>;
}

/** Characters from which a title gets a line for itself, as a VIN does. */
const LONG = 14;

export function Head({ title, back, children, under }: {
  title: string;
  back?: { href: string; label: string };
  children?: ComponentChildren;
  under?: ComponentChildren;
}) {
  useEffect(() => {
    document.title = `${title} · Peanut`;
  }, [title]);
  return (
    <>
      {back && (
        <a class="back" href={back.href}>
          <Icon name="back" />
          {back.label}
        </a>
      )}
      <header class="head">
        <h1 class={title.length > LONG ? "long" : ""}>{title}</h1>
        {children}
        {under && <p>{under}</p>}
      </header>
    </>
  );
}

export function Card({ title, aside, children }: { title?: string; aside?: ComponentChildren; children: ComponentChildren }) {
  return (
    <section class="card" aria-label={title}>
      {title && (aside ? <div class="row"><h2>{title}</h2>{aside}</div> : <h2>{title}</h2>)}
      {children}
    </section>
  );
}

/** A dialog; the phone's own way of closing it counts as well. */
export function Sheet({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    return () => shown?.close();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby={id} onCancel={(event) => (event.preventDefault(), close())}
      onClick={(event) => event.target === dialog.current && close()}>
      <div class="row">
        <h2 id={id} class="grow">{title}</h2>
        <button type="button" class="plain" onClick={close} aria-label={t("close")}><Icon name="cross" /></button>
      </div>
      {children}
    </dialog>
  );
}

/** What went wrong with a request, in words. */
export function problemText(error: unknown): string {
  if (!(error instanceof Problem)) return String(error);
  if (error.code === "no_connection") return t("problem.connection");
  if (error.code === "too_often" || error.code === "busy") return t("problem.often", { s: error.retryAfter || 60 });
  if (error.code === "forbidden") return `${t("problem.forbidden")} ${error.message}`;
  if (error.status === 404) return t("problem.missing");
  return error.message || t("problem.other", { status: error.status });
}

export function Trouble({ error }: { error: unknown }) {
  return <p class="banner wrong" role="alert">{problemText(error)}</p>;
}

export interface Loaded<T> {
  value: T | undefined;
  error: unknown;
  again: () => void;
}

/** Fetches when the page is shown, when `of` changes, and `again`. */
export function useLoad<T>(fetcher: (signal: AbortSignal) => Promise<T>, of: readonly unknown[]): Loaded<T> {
  const [found, setFound] = useState<{ value: T | undefined; error: unknown }>({ value: undefined, error: undefined });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const controller = new AbortController();
    fetcher(controller.signal).then(
      (value) => !controller.signal.aborted && setFound({ value, error: undefined }),
      (error: unknown) => !controller.signal.aborted && setFound((old) => ({ value: old.value, error })),
    );
    return () => controller.abort();
  }, [...of, turn]);
  const again = useCallback(() => setTurn((n) => n + 1), []);
  return { ...found, again };
}

/** A thing that is being fetched: waiting, what went wrong, nothing there, or what it is. */
export function Fetched<T>({ from, empty, children }: {
  from: Loaded<T>;
  empty?: (value: T) => string | false;
  children: (value: T) => ComponentChildren;
}) {
  if (from.value === undefined) {
    return from.error === undefined ? <p class="soft" role="status">{t("loading")}</p> : <Trouble error={from.error} />;
  }
  const nothing = empty?.(from.value);
  return (
    <>
      {from.error !== undefined && <Trouble error={from.error} />}
      {nothing ? <p class="soft">{nothing}</p> : children(from.value)}
    </>
  );
}

/** A form that sends something and says how it went. */
export function useSend(work: () => Promise<void>): { busy: boolean; error: unknown; send: (event?: Event) => void } {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const send = (event?: Event): void => {
    event?.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(undefined);
    work().catch(setError).finally(() => setBusy(false));
  };
  return { busy, error, send };
}

export function Field({ label, hint, children, ...input }: {
  label: string;
  hint?: string | undefined;
  children?: ComponentChildren;
} & InputHTMLAttributes<HTMLInputElement>) {
  return (
    <label>
      {label}
      {children ?? <input {...input} />}
      {hint && <small>{hint}</small>}
    </label>
  );
}

export function Segments<T extends string>({ label, values, chosen, choose }: {
  label: string;
  values: readonly (readonly [T, string])[];
  chosen: T;
  choose: (value: T) => void;
}) {
  return (
    <div class="segments" role="group" aria-label={label}>
      {values.map(([value, text]) => (
        <button type="button" key={value} aria-pressed={value === chosen} onClick={() => choose(value)}>{text}</button>
      ))}
    </div>
  );
}

/** Two round buttons and the number between them; arrow keys work on it, too. */
export function Stepper({ label, value, step, least, most, change }: {
  label: string;
  value: number;
  step: number;
  least: number;
  most: number;
  change: (value: number) => void;
}) {
  const by = (delta: number): void => change(Math.min(most, Math.max(least, Math.round((value + delta) / step) * step)));
  const onKeyDown = (event: KeyboardEvent): void => {
    const delta = { ArrowUp: step, ArrowRight: step, ArrowDown: -step, ArrowLeft: -step }[event.key];
    if (delta === undefined) return;
    event.preventDefault();
    by(delta);
  };
  return (
    <div class="stepper" role="group" aria-label={label} onKeyDown={onKeyDown}>
      <button type="button" onClick={() => by(-step)} disabled={value <= least} aria-label={t("colder")}>
        <Icon name="minus" size={28} />
      </button>
      <output aria-live="polite" data-testid="draft">{number(value)} °C</output>
      <button type="button" onClick={() => by(step)} disabled={value >= most} aria-label={t("warmer")}>
        <Icon name="plus" size={28} />
      </button>
    </div>
  );
}

export function Through({ href, icon, title, under }: { href: string; icon: IconName; title: string; under?: string }) {
  return (
    <li>
      <a class="through" href={href}>
        <Icon name={icon} />
        <span>
          {title}
          {under && <small class="soft"><br />{under}</small>}
        </span>
        <Icon name="next" size={18} />
      </a>
    </li>
  );
}

/** Asks before what cannot be undone. */
export function Confirm({ title, text, act, label, close }: {
  title: string;
  text: string;
  act: () => Promise<void>;
  label: Key;
  close: () => void;
}) {
  const { busy, error, send } = useSend(async () => {
    await act();
    close();
  });
  return (
    <Sheet title={title} close={close}>
      <form onSubmit={send}>
        <p>{text}</p>
        {error !== undefined && <Trouble error={error} />}
        <button class="danger wide" disabled={busy}>{t(label)}</button>
      </form>
    </Sheet>
  );
}

/** Redraws every so many seconds, for words like "5 minutes ago". */
export function useTick(seconds: number): void {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
}

// Puts the app together: language, light, who is signed in, the pages by their addresses, and the way between them.
//
// Rule: composition only. Pages that are seldom needed are loaded when somebody goes there.

import { Component, type ComponentChildren, type ComponentType, render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { comeBack, me } from "./api";
import { useCell } from "./cell";
import { alerts, follow, link } from "./live";
import { Alerts } from "./pages/alerts";
import { DevicePage } from "./pages/device";
import { Door, ShareDoor } from "./pages/door";
import { Fleet } from "./pages/fleet";
import { More } from "./pages/more";
import { followNotices } from "./push";
import { route, to } from "./router";
import { wear } from "./settings";
import { check } from "./trust";
import { Icon, type IconName } from "./ui/icon";
import { type Key, learn, t, when, words } from "./words";
import "./styles.css";

const RELOADED = "peanut.reloaded";
const AT_MOST_EVERY_MS = 60_000;

/** A part of the app that is not there any more is one of an older build: the page is loaded anew, once. */
function renewed(): boolean {
  const last = Number(sessionStorage.getItem(RELOADED) ?? 0);
  if (!link.value.live || Date.now() - last < AT_MOST_EVERY_MS) return false;
  sessionStorage.setItem(RELOADED, String(Date.now()));
  location.reload();
  return true;
}

/** A page of its own file, fetched with its first visit. */
function later<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let known: ComponentType<P> | undefined;
  return function Later(properties: P) {
    const [, redraw] = useState(0);
    const [broken, setBroken] = useState(false);
    useEffect(() => {
      if (!known) load().then((page) => ((known = page), redraw(1)), () => setBroken(!renewed()));
    }, []);
    if (broken) return <p class="banner wrong" role="alert">{t("problem.connection")}</p>;
    const Page = known;
    return Page ? <Page {...properties} /> : <p class="soft" role="status">{t("loading")}</p>;
  };
}

const Groups = later(() => import("./pages/groups").then((found) => found.Groups));
const GroupPage = later(() => import("./pages/groups").then((found) => found.GroupPage));
const Recipes = later(() => import("./pages/recipes").then((found) => found.Recipes));
const RecipePage = later(() => import("./pages/recipes").then((found) => found.RecipePage));
const Users = later(() => import("./pages/users").then((found) => found.Users));
const Shares = later(() => import("./pages/shares").then((found) => found.Shares));
const Settings = later(() => import("./pages/settings").then((found) => found.Settings));
const Onboard = later(() => import("./pages/onboard").then((found) => found.Onboard));
const Certificates = later(() => import("./pages/certificates").then((found) => found.Certificates));
const Audit = later(() => import("./pages/audit").then((found) => found.Audit));
const Console = later(() => import("./pages/console").then((found) => found.Console));
const TrustPage = later(() => import("./pages/trust").then((found) => found.TrustPage));

/** A page that cannot show what it was given says so, and takes no other page with it. */
class Guard extends Component<{ children: ComponentChildren }, { broken: boolean }> {
  override state = { broken: false };

  override componentDidCatch(error: unknown): void {
    console.error(error);
    this.setState({ broken: true });
  }

  override render() {
    return this.state.broken ? <p class="banner wrong" role="alert">{t("problem.page")}</p> : this.props.children;
  }
}

function Page({ parts }: { parts: readonly string[] }) {
  const [first, second] = parts;
  switch (first) {
    case undefined:
      return <Fleet />;
    case "device":
      return <DevicePage name={second ?? ""} />;
    case "alerts":
      return <Alerts />;
    case "groups":
      return second ? <GroupPage name={second} key={second} /> : <Groups />;
    case "recipes":
      return second ? <RecipePage name={second} key={second} /> : <Recipes />;
    case "more":
      return <More />;
    case "users":
      return <Users />;
    case "shares":
      return <Shares device={second} key={second ?? ""} />;
    case "settings":
      return <Settings />;
    case "onboard":
      return <Onboard />;
    case "certificates":
      return <Certificates />;
    case "audit":
      return <Audit />;
    case "console":
      return <Console />;
    case "trust":
      return <TrustPage />;
    default:
      return <p class="card">{t("problem.missing")} <a href="#/">{t("fleet")}</a></p>;
  }
}

const WAYS: [string, Key, IconName][] = [
  ["", "fleet", "greenhouse"], ["alerts", "alerts", "bell"], ["groups", "groups", "layers"], ["more", "more", "more"],
];
/** Under which of the four a page is found. */
const UNDER: Record<string, string> = { device: "", recipes: "groups" };

function Ways({ first }: { first: string }) {
  const raised = useCell(alerts).filter(({ state }) => state === "raised").length;
  const shared = useCell(me)?.share != null;
  const current = UNDER[first] ?? (WAYS.some(([path]) => path === first) ? first : "more");
  return (
    <nav class="nav" aria-label={t("ways")}>
      <span class="brand"><img src="./icon.svg" alt="" width="32" height="32" />Peanut</span>
      {WAYS.filter(([path]) => !shared || path === "" || path === "more").map(([path, key, icon]) => (
        <a key={path} href={path ? to(path) : "#/"} {...(path === current ? { "aria-current": "page" as const } : {})}>
          <Icon name={icon} />
          {t(key)}
          {path === "alerts" && raised > 0 && <span class="count">{raised}<span class="unseen"> {t("alerts.open")}</span></span>}
        </a>
      ))}
    </nav>
  );
}

/** While there is no connection: that what is shown is old, and how old. */
function Old() {
  const { live, asOf } = useCell(link);
  if (live || asOf === null) return <div role="status" />;
  return (
    <div role="status">
      <p class="banner" data-testid="old"><Icon name="away" />{t("old", { when: when(asOf) })}</p>
    </div>
  );
}

function App() {
  const who = useCell(me);
  const parts = useCell(route);
  useCell(words);
  const place = useRef<HTMLElement>(null);
  const address = parts.join("/");
  const before = useRef(address);
  useEffect(() => {
    // A screen reader is taken to the new page, not left where the link was.
    if (before.current !== address) place.current?.focus({ preventScroll: true });
    before.current = address;
  }, [address]);
  if (parts[0] === "share" && parts[1]) return <ShareDoor secret={parts[1]} />;
  if (who === undefined) return null;
  if (who === null && parts[0] !== "trust") return <Door />;
  return (
    <>
      <a class="unseen skip" href="#main" onClick={(event) => (event.preventDefault(), place.current?.focus())}>{t("skip")}</a>
      {who && <Ways first={parts[0] ?? ""} />}
      <main id="main" ref={place} tabIndex={-1}>
        {who && <Old />}
        <Guard key={address}><Page parts={parts} /></Guard>
      </main>
    </>
  );
}

wear();
await learn();
follow();
followNotices();
render(<App />, document.getElementById("app")!);
await comeBack();
void check();

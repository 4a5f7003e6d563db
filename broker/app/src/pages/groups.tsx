// Groups: many greenhouses as one, brought to a set point or a recipe by one act, with what has become of it.
//
// Rule: progress is what the gateway counts, member by member; "refused" comes with the node's reason.

import { useEffect, useState } from "preact/hooks";

import { call, get, may, me } from "../api";
import { useCell } from "../cell";
import type { Group, Progress, Recipe } from "../contract";
import { fleet, progress } from "../live";
import { go, to } from "../router";
import { named, number, t } from "../words";
import { Card, Confirm, Fetched, Field, Head, Pill, Segments, Sheet, Stepper, Through, Trouble, useLoad, useSend } from "../ui/parts";

const ALL = "all";
const groupTitle = (group: { name: string; title?: string }): string =>
  group.name === ALL ? t("groups.all") : group.title || group.name;

export function Groups() {
  const groups = useLoad((signal) => get<{ groups: Group[] }>("/groups", { signal }), []);
  const [making, setMaking] = useState(false);
  const free = useCell(me)?.scope === null && may("operator");
  return (
    <>
      <Head title={t("groups")}>
        {free && <button class="little" onClick={() => setMaking(true)}>{t("groups.make")}</button>}
      </Head>
      <Card>
        <Fetched from={groups} empty={(found) => found.groups.length === 0 && t("groups.none")}>
          {(found) => (
            <ul class="list">
              {found.groups.map((group) => (
                <Through key={group.name} href={to("groups", group.name)} icon="layers" title={groupTitle(group)}
                  under={`${t("groups.members", { n: group.members.length })}${group.desired ? ` · ${desiredWords(group.desired)}` : ""}`} />
              ))}
            </ul>
          )}
        </Fetched>
      </Card>
      <p style={{ marginTop: "16px" }}><a class="button" href={to("recipes")}>{t("recipes")}</a></p>
      {making && <Edit close={() => setMaking(false)} done={(name) => go("groups", name)} />}
    </>
  );
}

const desiredWords = (desired: Progress["desired"]): string =>
  "setpoint" in desired ? `${number(desired.setpoint)} °C` : t("recipe.named", { name: desired.recipe });

export function GroupPage({ name }: { name: string }) {
  const groups = useLoad((signal) => get<{ groups: Group[] }>("/groups", { signal }), [name]);
  const group = groups.value?.groups.find((one) => one.name === name);
  const [editing, setEditing] = useState<"edit" | "delete" | null>(null);
  const free = useCell(me)?.scope === null && may("operator") && name !== ALL;
  const path = `/groups/${encodeURIComponent(name)}`;
  return (
    <>
      <Head title={group ? groupTitle(group) : name} back={{ href: to("groups"), label: t("groups") }}>
        {free && group && <button class="little" onClick={() => setEditing("edit")}>{t("edit")}</button>}
        {free && group && <button class="little danger" onClick={() => setEditing("delete")}>{t("delete")}</button>}
      </Head>
      <div class="columns">
        {may("operator") && <Bring name={name} changed={groups.again} />}
        <How name={name} wanted={group?.desired != null} />
      </div>
      {editing === "edit" && group && <Edit group={group} close={() => setEditing(null)} done={groups.again} />}
      {editing === "delete" && (
        <Confirm title={t("groups.delete")} text={t("groups.delete.text")} label="delete" close={() => setEditing(null)}
          act={async () => {
            await call("DELETE", path);
            go("groups");
          }} />
      )}
    </>
  );
}

function Bring({ name, changed }: { name: string; changed: () => void }) {
  const [by, setBy] = useState<"setpoint" | "recipe">("setpoint");
  const [value, setValue] = useState(18);
  const [recipe, setRecipe] = useState("");
  const recipes = useLoad((signal) => get<{ recipes: Recipe[] }>("/recipes", { signal }), []);
  const path = `/groups/${encodeURIComponent(name)}/desired`;
  const { busy, error, send } = useSend(async () => {
    progress.set(await call<Progress>("PUT", path, by === "setpoint" ? { setpoint: value } : { recipe }));
    changed();
  });
  const stop = useSend(async () => {
    await call("DELETE", path);
    changed();
  });
  return (
    <Card title={t("groups.bring")}>
      <form onSubmit={send}>
        <Segments label={t("groups.bring")} chosen={by} choose={setBy}
          values={[["setpoint", t("setpoint")], ["recipe", t("recipe")]]} />
        {by === "setpoint" ? (
          <Stepper label={t("setpoint")} value={value} step={0.5} least={0} most={45} change={setValue} />
        ) : (
          <Field label={t("recipe")}>
            <select value={recipe} required onChange={(event) => setRecipe(event.currentTarget.value)}>
              <option value="">–</option>
              {recipes.value?.recipes.map((one) => <option key={one.name} value={one.name}>{one.title || one.name}</option>)}
            </select>
          </Field>
        )}
        {(error ?? stop.error) !== undefined && <Trouble error={error ?? stop.error} />}
        <button class="primary wide" disabled={busy || (by === "recipe" && !recipe)}>
          {by === "setpoint" ? t("groups.all-to", { value: number(value) }) : t("groups.all-recipe")}
        </button>
        <button type="button" class="plain" disabled={stop.busy} onClick={() => stop.send()}>{t("groups.stop")}</button>
      </form>
    </Card>
  );
}

function How({ name, wanted }: { name: string; wanted: boolean }) {
  const told = useCell(progress);
  const path = `/groups/${encodeURIComponent(name)}/desired`;
  const found = useLoad(async (signal) => (wanted ? get<Progress>(path, { signal }) : null), [name, wanted]);
  useEffect(() => {
    if (told?.group === name) found.again();
  }, [told]);
  const how = found.value ?? null;
  if (!how) return <Card title={t("groups.progress")}><p class="soft">{t("groups.idle")}</p></Card>;
  const parts = [["at", "fine"], ["pending", "quiet"], ["offline", "warned"], ["refused", "wrong"]] as const;
  return (
    <Card title={t("groups.progress")}>
      <p class="big" style={{ fontSize: "2.75rem" }} data-testid="progress">
        {how.at}<span class="unit"> / {how.members}</span>
      </p>
      <p>{t("groups.at", { wanted: desiredWords(how.desired) })}</p>
      <p class="chips" style={{ margin: "12px 0" }}>
        {parts.map(([part, tone]) => how[part] > 0 && <Pill key={part} tone={tone}>{t(`progress.${part}`)}: {how[part]}</Pill>)}
      </p>
      <ul class="list">
        {how.devices.filter(({ state }) => state !== "at").slice(0, 200).map(({ device, state, why }) => (
          <li key={device}>
            <a class="grow" href={to("device", device)}>{device}</a>
            <Pill tone={state === "refused" ? "wrong" : state === "offline" ? "warned" : "quiet"}>{t(`progress.${state}`)}</Pill>
            {why && <small class="soft">{why}</small>}
          </li>
        ))}
      </ul>
    </Card>
  );
}

function Edit({ group, close, done }: { group?: Group; close: () => void; done: (name: string) => void }) {
  const devices = [...useCell(fleet).values()];
  const [name, setName] = useState(group?.name ?? "");
  const [title, setTitle] = useState(group?.title ?? "");
  const [members, setMembers] = useState<ReadonlySet<string>>(new Set(group?.members));
  const { busy, error, send } = useSend(async () => {
    await call("PUT", `/groups/${encodeURIComponent(name)}`, { title, members: [...members] });
    close();
    done(name);
  });
  const toggle = (member: string): void => {
    const next = new Set(members);
    if (!next.delete(member)) next.add(member);
    setMembers(next);
  };
  return (
    <Sheet title={t(group ? "groups.edit" : "groups.make")} close={close}>
      <form onSubmit={send}>
        {!group && (
          <Field label={t("name")} hint={t("name.hint")} required pattern="[a-z0-9\-]{1,32}" autocapitalize="none" value={name}
            onInput={(event) => setName(event.currentTarget.value)} />
        )}
        <Field label={t("title")} value={title} onInput={(event) => setTitle(event.currentTarget.value)} />
        <fieldset class="feed" style={{ border: 0, padding: 0, margin: 0 }}>
          <legend>{t("groups.who")}</legend>
          {devices.map((device) => (
            <label class="tick" key={device.name}>
              <input type="checkbox" checked={members.has(device.name)} onChange={() => toggle(device.name)} />
              {device.name} <small>{named("kind", device.kind)}</small>
            </label>
          ))}
        </fieldset>
        {error !== undefined && <Trouble error={error} />}
        <button class="primary wide" disabled={busy || !name}>{t("save")}</button>
      </form>
    </Sheet>
  );
}

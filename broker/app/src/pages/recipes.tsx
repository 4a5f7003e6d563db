// Recipes: a day's set points for each season of a crop.
//
// Rule: what is edited here is a draft of the whole recipe; the gateway judges it, and the nodes keep to it by themselves.

import { useState } from "preact/hooks";

import { call, get, may } from "../api";
import type { Recipe, Season } from "../contract";
import { go, to } from "../router";
import { t } from "../words";
import { Curve } from "../ui/curve";
import { Card, Confirm, Fetched, Field, Head, Sheet, Through, Trouble, useLoad, useSend } from "../ui/parts";
import { Icon } from "../ui/icon";

const FIRST: Season = { from: "01-01", curve: [{ at: "06:00", setpoint: 20 }, { at: "20:00", setpoint: 16 }] };

export function Recipes() {
  const recipes = useLoad((signal) => get<{ recipes: Recipe[] }>("/recipes", { signal }), []);
  const [making, setMaking] = useState(false);
  return (
    <>
      <Head title={t("recipes")} back={{ href: to("groups"), label: t("groups") }}>
        {may("operator") && <button class="little" onClick={() => setMaking(true)}>{t("recipes.make")}</button>}
      </Head>
      <Card>
        <Fetched from={recipes} empty={(found) => found.recipes.length === 0 && t("recipes.none")}>
          {(found) => (
            <ul class="list">
              {found.recipes.map((recipe) => (
                <Through key={recipe.name} href={to("recipes", recipe.name)} icon="book" title={recipe.title || recipe.name} />
              ))}
            </ul>
          )}
        </Fetched>
      </Card>
      {making && <Make close={() => setMaking(false)} />}
    </>
  );
}

function Make({ close }: { close: () => void }) {
  const [name, setName] = useState("");
  const { busy, error, send } = useSend(async () => {
    await call("PUT", `/recipes/${encodeURIComponent(name)}`, { title: name, seasons: [FIRST] });
    go("recipes", name);
  });
  return (
    <Sheet title={t("recipes.make")} close={close}>
      <form onSubmit={send}>
        <Field label={t("name")} hint={t("name.hint")} required pattern="[a-z0-9\-]{1,32}" autocapitalize="none" value={name}
          onInput={(event) => setName(event.currentTarget.value)} />
        {error !== undefined && <Trouble error={error} />}
        <button class="primary wide" disabled={busy}>{t("save")}</button>
      </form>
    </Sheet>
  );
}

export function RecipePage({ name }: { name: string }) {
  const path = `/recipes/${encodeURIComponent(name)}`;
  const recipe = useLoad((signal) => get<Recipe>(path, { signal }), [name]);
  const [deleting, setDeleting] = useState(false);
  return (
    <>
      <Head title={recipe.value?.title || name} back={{ href: to("recipes"), label: t("recipes") }}>
        {may("operator") && <button class="little danger" onClick={() => setDeleting(true)}>{t("delete")}</button>}
      </Head>
      <Fetched from={recipe}>{(found) => <Edit recipe={found} path={path} key={name} />}</Fetched>
      {deleting && (
        <Confirm title={t("delete")} text={name} label="delete" close={() => setDeleting(false)}
          act={async () => {
            await call("DELETE", path);
            go("recipes");
          }} />
      )}
    </>
  );
}

function Edit({ recipe, path }: { recipe: Recipe; path: string }) {
  const [title, setTitle] = useState(recipe.title);
  const [seasons, setSeasons] = useState(recipe.seasons);
  const [saved, setSaved] = useState(false);
  const change = (next: Season[]): void => (setSaved(false), setSeasons(next));
  const { busy, error, send } = useSend(async () => {
    await call("PUT", path, { title, seasons });
    setSaved(true);
  });
  const edit = (index: number, season: Season): void => change(seasons.map((old, i) => (i === index ? season : old)));
  return (
    <form onSubmit={send}>
      <Field label={t("title")} value={title} onInput={(event) => (setSaved(false), setTitle(event.currentTarget.value))} />
      {seasons.map((season, index) => (
        <Card key={index}>
          <div class="row">
            <Field label={t("season.from")} hint="MM-DD" pattern="\d\d-\d\d" required value={season.from}
              onInput={(event) => edit(index, { ...season, from: event.currentTarget.value })} />
            {seasons.length > 1 && (
              <button type="button" class="plain" onClick={() => change(seasons.filter((_, i) => i !== index))}>{t("delete")}</button>
            )}
          </div>
          <Curve recipe={{ ...recipe, seasons: [season] }} />
          <ul class="list">
            {season.curve.map((point, i) => {
              const put = (next: Partial<typeof point>): void =>
                edit(index, { ...season, curve: season.curve.map((old, j) => (j === i ? { ...old, ...next } : old)) });
              return (
                <li key={i} class="tight">
                  <input type="time" aria-label={t("season.at")} required value={point.at} style={{ width: "130px" }}
                    onInput={(event) => put({ at: event.currentTarget.value })} />
                  <input type="number" aria-label={t("setpoint")} required step="0.5" min="0" max="45" value={point.setpoint}
                    style={{ width: "96px" }} onInput={(event) => put({ setpoint: event.currentTarget.valueAsNumber })} />
                  °C
                  <button type="button" class="plain" aria-label={t("delete")} disabled={season.curve.length < 2}
                    onClick={() => edit(index, { ...season, curve: season.curve.filter((_, j) => j !== i) })}>
                    <Icon name="cross" />
                  </button>
                </li>
              );
            })}
          </ul>
          <button type="button" class="plain"
            onClick={() => edit(index, { ...season, curve: [...season.curve, { at: "12:00", setpoint: 20 }] })}>
            {t("season.point")}
          </button>
        </Card>
      ))}
      <button type="button" class="little" onClick={() => change([...seasons, { ...FIRST, from: "10-01" }])}>{t("season.add")}</button>
      {error !== undefined && <Trouble error={error} />}
      {may("operator") && <button class="primary wide" disabled={busy}>{t(saved ? "saved" : "save")}</button>}
    </form>
  );
}

// Users: who may sign in, as what, and for which groups.
//
// Rule: a password goes one way and is never shown.

import { useState } from "preact/hooks";

import { call, get, me } from "../api";
import { useCell } from "../cell";
import type { Group, Role, SignIn, User } from "../contract";
import { to } from "../router";
import { ago, named, t } from "../words";
import { Card, Confirm, Fetched, Field, Head, Pill, Sheet, Trouble, useLoad, useSend } from "../ui/parts";

const ROLES: Role[] = ["viewer", "operator", "admin"];

export function Users() {
  const users = useLoad((signal) => get<{ users: User[] }>("/users", { signal }), []);
  const [open, setOpen] = useState<User | "new" | null>(null);
  return (
    <>
      <Head title={t("users")} back={{ href: to("more"), label: t("more") }}>
        <button class="little" onClick={() => setOpen("new")}>{t("users.make")}</button>
      </Head>
      <Card>
        <Fetched from={users}>
          {(found) => (
            <ul class="list">
              {found.users.map((user) => (
                <li key={user.name}>
                  <span class="grow">
                    {user.name} <Pill tone="quiet">{named("role", user.role)}</Pill>
                    {user.scope && <small class="soft"><br />{user.scope.join(", ")}</small>}
                  </span>
                  <button class="little" onClick={() => setOpen(user)} aria-label={`${t("edit")}: ${user.name}`}>{t("edit")}</button>
                </li>
              ))}
            </ul>
          )}
        </Fetched>
      </Card>
      {open && <Edit {...(open === "new" ? {} : { user: open })} close={() => setOpen(null)} done={users.again} />}
    </>
  );
}

function Edit({ user, close, done }: { user?: User; close: () => void; done: () => void }) {
  const mine = useCell(me)?.name === user?.name;
  const [name, setName] = useState(user?.name ?? "");
  const [role, setRole] = useState<Role>(user?.role ?? "viewer");
  const [password, setPassword] = useState("");
  const [scope, setScope] = useState<string[] | null>(user?.scope ?? null);
  const [deleting, setDeleting] = useState(false);
  const groups = useLoad((signal) => get<{ groups: Group[] }>("/groups", { signal }), []);
  const path = `/users/${encodeURIComponent(name)}`;
  const { busy, error, send } = useSend(async () => {
    await call("PUT", path, { role, scope, ...(password ? { password } : {}) });
    done();
    close();
  });
  if (deleting) {
    return (
      <Confirm title={t("delete")} text={t("users.delete", { name })} label="delete" close={close}
        act={async () => {
          await call("DELETE", path);
          done();
        }} />
    );
  }
  return (
    <Sheet title={user ? user.name : t("users.make")} close={close}>
      <form onSubmit={send}>
        {!user && (
          <Field label={t("user")} required autocapitalize="none" autocomplete="off" value={name}
            onInput={(event) => setName(event.currentTarget.value)} />
        )}
        <Field label={t("role")}>
          <select value={role} onChange={(event) => setRole(event.currentTarget.value as Role)}>
            {ROLES.map((one) => <option key={one} value={one}>{named("role", one)}: {t(`role.${one}.may`)}</option>)}
          </select>
        </Field>
        <Field label={t(user ? "password.new" : "password")} type="password" required={!user} autocomplete="new-password"
          hint={user ? t("password.keep") : undefined} value={password} onInput={(event) => setPassword(event.currentTarget.value)} />
        <fieldset style={{ border: 0, padding: 0, margin: 0 }}>
          <legend>{t("users.scope")}</legend>
          <label class="tick">
            <input type="checkbox" checked={scope === null} onChange={() => setScope(scope === null ? [] : null)} />
            {t("users.everything")}
          </label>
          {scope !== null && groups.value?.groups.map((group) => (
            <label class="tick" key={group.name}>
              <input type="checkbox" checked={scope.includes(group.name)}
                onChange={() => setScope(scope.includes(group.name) ? scope.filter((one) => one !== group.name) : [...scope, group.name])} />
              {group.title || group.name}
            </label>
          ))}
        </fieldset>
        {error !== undefined && <Trouble error={error} />}
        <button class="primary wide" disabled={busy}>{t("save")}</button>
        {user && !mine && <button type="button" class="danger wide" onClick={() => setDeleting(true)}>{t("delete")}</button>}
      </form>
      {user && <SignIns user={user.name} />}
    </Sheet>
  );
}

/** Where somebody is signed in, each of which can be ended. */
export function SignIns({ user }: { user?: string }) {
  const path = user ? `/sessions?user=${encodeURIComponent(user)}` : "/sessions";
  const sessions = useLoad((signal) => get<{ sessions: SignIn[] }>(path, { signal }), [user]);
  const end = async (id: string): Promise<void> => {
    await call("DELETE", `/sessions/${encodeURIComponent(id)}`);
    sessions.again();
  };
  return (
    <section aria-label={t("sessions")} style={{ marginTop: "18px" }}>
      <h2>{t("sessions")}</h2>
      <Fetched from={sessions} empty={(found) => found.sessions.length === 0 && t("sessions.none")}>
        {(found) => (
          <ul class="list">
            {found.sessions.map((session) => (
              <li key={session.id}>
                <span class="grow">
                  {browser(session.agent)} {session.current && <Pill tone="fine">{t("sessions.this")}</Pill>}
                  <small class="soft"><br />{session.address} · {ago(session.used)}</small>
                </span>
                {!session.current && <button type="button" class="little" onClick={() => void end(session.id)}>{t("sessions.end")}</button>}
              </li>
            ))}
          </ul>
        )}
      </Fetched>
    </section>
  );
}

/** What a person calls the program behind a User-Agent header. */
function browser(agent: string): string {
  const name = /Firefox|Edg|OPR|Chrome|Safari|curl/.exec(agent)?.[0] ?? agent.slice(0, 24);
  const system = /Android|iPhone|iPad|Windows|Mac OS X|Linux/.exec(agent)?.[0];
  return [{ Edg: "Edge", OPR: "Opera" }[name] ?? name, system].filter(Boolean).join(", ");
}

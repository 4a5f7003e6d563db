"""Groups and recipes: who is together, where they are to be, and how far they are.

The rule it keeps: who wants something of a group must be allowed to command each of its members; who is held to groups
sees these, changes none, and of their members those that he may see.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse

from peanutd import groups as module
from peanutd import recipes
from peanutd.access import Role
from peanutd.api import asking, shape
from peanutd.api.problem import Problem, not_found
from peanutd.api.rights import UPDATE
from peanutd.api.shape import COUNT, NUMBER, TEXT, TIME, listed, or_null, table, text, words
from peanutd.api.table import PATHS, Call, Operation
from peanutd.groups import ALL, Group, GroupError
from peanutd.recipes import RecipeError

_NAME: Final = text(32, 1, f"^({module.NAME.pattern})$")
PATHS["group"] = _NAME
PATHS["recipe"] = _NAME

_SETPOINT: Final = {"type": "number", "minimum": recipes.COLDEST, "maximum": recipes.HOTTEST}
_WHO: Final = {"by": TEXT, "ts": TIME}
DESIRED: Final = shape.name(
    "Desired", {"anyOf": [table({"setpoint": NUMBER, **_WHO}), table({"recipe": TEXT, **_WHO})]}
)
GROUP: Final = shape.name(
    "Group", table({"name": TEXT, "title": TEXT, "members": listed(TEXT), "desired": or_null(DESIRED)})
)
PROGRESS: Final = shape.name(
    "Progress",
    table(
        {
            "group": TEXT,
            "desired": DESIRED,
            **dict.fromkeys(("members", "at", "pending", "offline", "refused"), COUNT),
            "devices": listed(
                table(
                    {
                        "device": TEXT,
                        "state": words("at", "pending", "offline", "refused"),
                        "why": or_null(TEXT),
                    }
                )
            ),
        }
    ),
)
_POINT: Final = table({"at": text(5, 5), "setpoint": _SETPOINT})
_SEASON: Final = table({"from": text(5, 5), "curve": listed(_POINT, recipes.MAX_POINTS, minItems=1)})
_SEASONS: Final = listed(_SEASON, recipes.MAX_SEASONS, minItems=1)
RECIPE: Final = shape.name("Recipe", table({"name": TEXT, "title": TEXT, "seasons": _SEASONS}))


async def _group(call: Call) -> tuple[Group, frozenset[str]]:
    """The group of the path, and which of its members somebody may see. Problem `not_found`."""
    name = call.path["group"]
    visible = frozenset(await call.services.rights.visible(call.person))
    scope = call.person.scope
    found = await asking.ask_groups(call.services, lambda groups: groups.group(name))
    if found is None or (scope is not None and name != ALL and name not in scope):
        raise not_found("group")
    return found, visible


def _shown(group: Group, visible: frozenset[str]) -> dict[str, Any]:
    members = [name for name in group.members if name in visible]
    desired = group.desired.as_json() if group.desired is not None else None
    return {"name": group.name, "title": group.title, "members": members, "desired": desired}


def _free(call: Call) -> None:
    """Problem `forbidden` for who is held to groups."""
    if call.person.scope is not None:
        raise Problem("forbidden", "who is held to some groups can change none")


async def listing(call: Call) -> Any:
    """GET /groups."""
    visible, scope = frozenset(await call.services.rights.visible(call.person)), call.person.scope
    found = await asking.ask_groups(call.services, lambda groups: groups.groups())
    return {"groups": [_shown(one, visible) for one in found if scope is None or one.name == ALL or one.name in scope]}


async def put(call: Call) -> Any:
    """PUT /groups/{group}."""
    _free(call)
    name, body = call.path["group"], call.body
    members = list(dict.fromkeys(body["members"]))
    await call.services.audit.add(call.origin, "group", name, "ok", members=len(members))
    try:
        new = await asking.ask_groups(call.services, lambda groups: groups.put(name, body.get("title", ""), members))
    except GroupError as error:
        raise Problem("invalid", str(error)) from None
    group, visible = await _group(call)
    return JSONResponse(_shown(group, visible), 201 if new else 200)


async def remove(call: Call) -> Any:
    """DELETE /groups/{group}."""
    _free(call)
    name = call.path["group"]
    await call.services.audit.add(call.origin, "group-removed", name)
    if not await asking.ask_groups(call.services, lambda groups: groups.remove(name)):
        raise not_found("group")


async def want(call: Call) -> Any:
    """PUT /groups/{group}/desired."""
    services, body = call.services, call.body
    setpoint, recipe = body.get("setpoint"), body.get("recipe")
    group, visible = await _group(call)
    await _allowed(call, group)
    detail = {"setpoint": setpoint} if recipe is None else {"recipe": recipe}
    await services.audit.add(call.origin, "desired", group.name, "ok", members=len(group.members), **detail)
    by, now = call.person.who, services.clock()
    try:
        progress = await asking.ask_groups(
            services, lambda groups: groups.want(group.name, by, now, setpoint=setpoint, recipe=recipe)
        )
    except GroupError as error:
        raise Problem("invalid", str(error)) from None
    return progress.as_json(visible)


async def _allowed(call: Call, group: Group) -> None:
    """Problem `forbidden` unless whoever calls may give every member a set point."""
    nodes = await call.services.rights.visible(call.person)
    greenhouses = [nodes[name] for name in group.members if name in nodes and not nodes[name].vehicle]
    vehicles = sum(1 for name in group.members if name in nodes and nodes[name].vehicle)
    may = await call.services.rights.commands(call.person, greenhouses)
    if len(greenhouses) + vehicles < len(group.members) or not all(UPDATE in verbs for verbs in may):
        await call.services.audit.add(call.origin, "desired", group.name, "refused", "not allowed")
        raise Problem("forbidden", "you may not command every member of this group")


async def progress(call: Call) -> Any:
    """GET /groups/{group}/desired."""
    group, visible = await _group(call)
    now = call.services.clock()
    found = await asking.ask_groups(call.services, lambda groups: groups.progress(group.name, now))
    if found is None:
        raise not_found("wish for this group")
    return found.as_json(visible)


async def unwant(call: Call) -> Any:
    """DELETE /groups/{group}/desired."""
    group, _ = await _group(call)
    await _allowed(call, group)
    await call.services.audit.add(call.origin, "desired-removed", group.name)
    if not await asking.ask_groups(call.services, lambda groups: groups.unwant(group.name)):
        raise not_found("wish for this group")


async def all_recipes(call: Call) -> Any:
    """GET /recipes."""
    found = await asking.ask_groups(call.services, lambda groups: groups.recipes())
    return {"recipes": [{"name": recipe.name, **recipe.as_json()} for recipe in found]}


async def recipe(call: Call) -> Any:
    """GET /recipes/{recipe}."""
    name = call.path["recipe"]
    found = await asking.ask_groups(call.services, lambda groups: groups.recipe(name))
    if found is None:
        raise not_found("recipe")
    return {"name": found.name, **found.as_json()}


async def put_recipe(call: Call) -> Any:
    """PUT /recipes/{recipe}."""
    _free(call)
    name, body = call.path["recipe"], call.body
    await call.services.audit.add(call.origin, "recipe", name)
    try:
        new = await asking.ask_groups(call.services, lambda groups: groups.put_recipe(name, body))
    except RecipeError as error:
        raise Problem("invalid", str(error)) from None
    return JSONResponse(await recipe(call), 201 if new else 200)


async def remove_recipe(call: Call) -> Any:
    """DELETE /recipes/{recipe}."""
    _free(call)
    name = call.path["recipe"]
    await call.services.audit.add(call.origin, "recipe-removed", name)
    try:
        if not await asking.ask_groups(call.services, lambda groups: groups.remove_recipe(name)):
            raise not_found("recipe")
    except GroupError as error:
        raise Problem("conflict", str(error)) from None


BODY_MAX: Final = 512 * 1024
"""Bytes of the members of a group: so many names fit."""
_USUAL: Final = ("unavailable",)

OPERATIONS: Final = (
    Operation(
        *("GET", "/groups", listing, "Groups"),
        answers={200: table({"groups": listed(GROUP)})},
        problems=_USUAL,
    ),
    Operation(
        *("PUT", "/groups/{group}", put, "Make or change a group"),
        answers={200: GROUP, 201: GROUP},
        role=Role.OPERATOR,
        body=table(
            {"members": listed(text(32, 1), module.MAX_MEMBERS)},
            {"title": text(module.MAX_TITLE)},
        ),
        body_max=BODY_MAX,
        problems=("invalid", "forbidden", *_USUAL),
    ),
    Operation(
        *("DELETE", "/groups/{group}", remove, "Dissolve a group"),
        role=Role.OPERATOR,
        problems=("forbidden", *_USUAL),
    ),
    Operation(
        *("PUT", "/groups/{group}/desired", want, "Bring the whole group there"),
        answers={202: PROGRESS},
        role=Role.OPERATOR,
        body={"anyOf": [table({"setpoint": _SETPOINT}), table({"recipe": _NAME})]},
        problems=("invalid", "forbidden", *_USUAL),
    ),
    Operation(
        *("GET", "/groups/{group}/desired", progress, "How far it is"),
        answers={200: PROGRESS},
        problems=_USUAL,
    ),
    Operation(
        *("DELETE", "/groups/{group}/desired", unwant, "Bring nobody there any more"),
        role=Role.OPERATOR,
        problems=("forbidden", *_USUAL),
    ),
    Operation(
        *("GET", "/recipes", all_recipes, "Recipes"),
        answers={200: table({"recipes": listed(RECIPE)})},
        problems=_USUAL,
    ),
    Operation("GET", "/recipes/{recipe}", recipe, "A recipe", answers={200: RECIPE}, problems=_USUAL),
    Operation(
        *("PUT", "/recipes/{recipe}", put_recipe, "Make or change a recipe"),
        answers={200: RECIPE, 201: RECIPE},
        role=Role.OPERATOR,
        body=table({"seasons": _SEASONS}, {"title": text(recipes.MAX_TITLE)}),
        problems=("invalid", "forbidden", *_USUAL),
    ),
    Operation(
        *("DELETE", "/recipes/{recipe}", remove_recipe, "Remove a recipe"),
        role=Role.OPERATOR,
        problems=("forbidden", "conflict", *_USUAL),
    ),
)

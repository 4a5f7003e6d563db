"""`peanut audit`: what is wrong with the fleet, or soon will be."""

from dataclasses import asdict

import click

from peanut import audit, ca
from peanut.cli import json_option, pass_home, say, say_json
from peanut.errors import Exit
from peanut.home import Home


@click.command("audit")
@json_option
@click.pass_context
@pass_home
def audit_command(home: Home, ctx: click.Context, as_json: bool) -> None:
    """Compare what was enrolled with what the gateway has seen: shared and weak keys, one board under two names, a
    device with another chip or from many networks, certificates that nobody renews, secrets that others can read,
    rules wider than they need be.

    Exit status: 0 nothing that must be acted on, 1 errors.

    \b
    Examples:
      peanut audit
      peanut audit --json | jq -r '.[] | select(.level == "error") | .who'
    """
    home.require()
    found = audit.audit(home, ca.utc_now())
    if as_json:
        say_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            say(f"{finding.level:<8} {finding.who}: {finding.what}")
            if finding.fix:
                say(f"{'':<8}   {finding.fix}")
        if not found:
            say("nothing found")
    ctx.exit(Exit.REJECTED if any(finding.level == "error" for finding in found) else 0)

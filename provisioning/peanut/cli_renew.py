"""`peanut renew`: whatever is due, by itself. The gateway runs it now and then."""

import click

from peanut import ca, cli, crl, init, operators, plan, renewal, store
from peanut.cli import dry_run_option, pass_home, say, wait_option, warn
from peanut.home import Home


@click.command("renew")
@wait_option
@dry_run_option
@pass_home
def renew_command(home: Home, wait_s: float, dry_run: bool) -> None:
    """Renew what has lived two thirds of its life: the gateway's certificate, operators', and the nodes'.

    The gateway runs this by itself every few hours ([access] renew_hours), where the issuing CA's key is in its home.
    Where that key is on another machine, run it there, with the control socket of the gateway forwarded:

    \b
      ssh -N -L /tmp/gateway.sock:/srv/fleet/control.sock gateway &
      PEANUT_CONTROL=/tmp/gateway.sock peanut renew
      scp fleet/gateway/gateway.crt gateway:/srv/fleet/gateway/     # if that was due

    \b
    Examples:
      peanut renew
      peanut renew --dry-run
    """
    home.require()
    now = ca.utc_now()
    with home.lock(warn):
        steps = init.renew_gateway(home, now) if renewal.gateway_is_due(home, now) else []
        for name in operators.existing(home):
            path = home.operator(name) / operators.CERTIFICATE
            if path.exists() and renewal.certificate_is_due(home, store.certificate(path), now):
                steps += operators.renew(home, name, now)
        if steps:
            plan.carry_out(steps, say, dry_run=dry_run)
        if not dry_run:
            crl.publish(home, now)
            if crl.ocsp_is_due(home, now):
                crl.ocsp_signer(home, now)
                say("gateway/ocsp.crt: new key and certificate for the OCSP responder")
    if dry_run:
        for row in renewal.due_rows(home, now):
            say(f"{row.name}: is due")
    else:
        cli.renew_nodes(home, None, now, force=False, wait_s=wait_s)

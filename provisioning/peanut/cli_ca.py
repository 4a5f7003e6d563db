"""`peanut ca`: the fleet's certificate authorities, and their succession."""

from pathlib import Path

import click

from peanut import ca, cli_init, crl, init, plan, rotation, store
from peanut.cli import dry_run_option, pass_home, say, warn
from peanut.errors import PeanutError
from peanut.home import Home

force_option = click.option("--force", is_flag=True, help="Leave behind who is not ready; these are to be flashed.")


@click.group("ca")
def ca_group() -> None:
    """The root and the issuing CA: look at them, replace them."""


@ca_group.command("show")
@pass_home
def show(home: Home) -> None:
    """Show what is in use, and what is trusted beside it.

    \b
    Examples:
      peanut ca show
    """
    home.require()
    now = ca.utc_now()
    for name in ("root.crt", "issuing.crt"):
        for number, certificate in enumerate(store.certificates(home.ca / name)):
            state = "trusted" if number else "in use "
            say(f"{state}  {ca.common_name(certificate)}, {ca.validity(certificate, now)}")


@ca_group.command("rotate")
@click.option("--root", is_flag=True, help="The root: run it twice, with `peanut renew` in between.")
@click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line is the passphrase of the root's key (of the new one with --root).",
)
@force_option
@dry_run_option
@pass_home
def rotate(home: Home, root: bool, passphrase_file: Path | None, force: bool, dry_run: bool) -> None:
    """Replace the issuing CA, or with --root the root, while every node stays online.

    ca/root.key must be there. The old one stays trusted; nodes get what is new as `peanut renew` reaches them, over
    their own sessions; `peanut ca finish` ends the trust in the old when nobody needs it any more.

    \b
    Examples:
      peanut ca rotate && peanut renew && peanut ca finish
      peanut ca rotate --root && peanut renew      # everybody trusts both
      peanut ca rotate --root && peanut renew      # the new one is in use
      peanut ca finish && peanut renew
    """
    home.require()
    now = ca.utc_now()
    with home.lock(warn):
        if root and not rotation.root_is_begun(home):
            made = init.check_passphrase(init.passphrase_file(passphrase_file)) if passphrase_file else None
            made = made or init.left_passphrase(home) or init.generate_passphrase()
            steps = rotation.root_begin(home, made.value, now)
            if made.generated and not (home.ca / "root.pass").exists():
                steps.insert(0, init.passphrase_step(home, made))
        else:
            secret = _passphrase(home, passphrase_file)
            steps = (
                rotation.root_switch(home, secret, now, force=force) if root else rotation.issuing(home, secret, now)
            )
        plan.carry_out(steps, say, dry_run=dry_run)
        if not dry_run:
            crl.publish(home, now)
            if crl.ocsp_is_due(home, now):
                crl.ocsp_signer(home, now)
    if not dry_run:
        warn("Now `peanut renew` brings it to the nodes, as they are there; the gateway also does so by itself.")


def _passphrase(home: Home, file: Path | None) -> bytes:
    if file is not None:
        return init.passphrase_file(file)
    left = init.left_passphrase(home)
    if left is not None:
        return left.value
    return cli_init.ask_passphrase()


@ca_group.command("finish")
@force_option
@dry_run_option
@pass_home
def finish(home: Home, force: bool, dry_run: bool) -> None:
    """Trust what was replaced no more, once nothing of it is left.

    \b
    Examples:
      peanut ca finish
    """
    home.require()
    with home.lock(warn):
        done = plan.carry_out(rotation.finish(home, force=force), say, dry_run=dry_run)
        if done and not dry_run:
            crl.publish(home, ca.utc_now())


@ca_group.command("crl")
@pass_home
def crl_command(home: Home) -> None:
    """Make the revocation list for others, ca/issuing.crl (DER), anew.

    `peanut device revoke` and `peanut renew` do it by themselves. The gateway does not go by it: it is for other
    programs that trust this CA. The gateway serves it at /issuing.crl beside /metrics. Between `peanut ca rotate` and
    `finish` there is one for each CA that was replaced as well: ca/issuing-MARK.crl, with the digits of its name.

    \b
    Examples:
      peanut ca crl && openssl crl -in fleet/ca/issuing.crl -noout -text
    """
    home.require()
    with home.lock(warn):
        if not crl.publish(home, ca.utc_now()):
            raise PeanutError("the key of the issuing CA is not here", "Run this where ca/issuing.key is.")
    say(f"{crl.path(home)}")


@ca_group.command("ocsp")
@pass_home
def ocsp_command(home: Home) -> None:
    """Let the gateway answer OCSP (RFC 6960) at /ocsp beside /metrics, for other programs that trust this CA.

    Makes a key and a certificate for that alone; `peanut renew` renews them. Remove gateway/ocsp.* to end it.

    \b
    Examples:
      peanut ca ocsp
      openssl ocsp -issuer fleet/ca/issuing.crt -CAfile fleet/ca/root.crt -cert leaf.pem -url http://127.0.0.1:9883/ocsp
    """
    home.require()
    with home.lock(warn):
        crl.ocsp_signer(home, ca.utc_now())
    say(f"{home.gateway / 'ocsp.crt'}")

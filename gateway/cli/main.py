"""The commands: what stands on the command line, and what comes out of it.

Decided here: flags are settings by another name, laid over the environment before it is read, so that each value is
judged in one place. What is wrong with settings and policy is told at once, all of it (config/load.py): on stdout by
`check`, whose product it is, on stderr with exit 78 (EX_CONFIG of sysexits.h) by `serve`. No flag takes the fal
credential: every process of the machine can read a command line.

What one command alone needs is imported by it: the data path's modules take a third of a second of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from time import time
from typing import TYPE_CHECKING

from gateway.cli import reports as ledgercommands
from gateway.cli.console import say, say_if_read
from gateway.cli.reports import EXIT_CONFIG, EXIT_FAILED, log_of, read_by
from gateway.cli.texts import key_lines, welcome_lines
from gateway.config.access import Access
from gateway.config.grammar import identifier
from gateway.config.load import ConfigurationError, read_configuration, summary
from gateway.config.policy_snapshot import PolicySnapshot
from gateway.config.ruleset import document_with_key
from gateway.config.settings import HIGHEST_PORT
from gateway.policy.credential import digest_of, new_key_text
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.processes.supervisor import Supervisor


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (2 for a command line that is none, by argparse)."""
    arguments = _parser().parse_args(argv)
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fal-gateway", description="One gateway for all calls to fal.ai.")
    parser.add_argument("--version", action="version", version=f"fal-gateway {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--policy", metavar="FILE", help="policy file (FALGW_POLICY)")
    serve.add_argument("--workers", metavar="N", help="processes that share the port (FALGW_WORKERS)")
    serve.add_argument("--host", metavar="HOST", help="address to listen on (FALGW_HOST)")
    serve.add_argument("--port", metavar="PORT", help="port to listen on (FALGW_PORT)")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="tell every error in settings and policy, and change nothing")
    check.add_argument("policy", nargs="?", metavar="FILE", help="policy file, in place of FALGW_POLICY")
    check.set_defaults(run=_check)

    keys = commands.add_parser("keys", help="gateway keys").add_subparsers(required=True, metavar="COMMAND")
    new = keys.add_parser("new", help="make a key: its secret, shown once, and its entry for the policy")
    new.add_argument("--id", required=True, type=read_by(identifier), help="id of the key")
    new.add_argument("--team", required=True, type=read_by(identifier), help="id of its team")
    new.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    new.set_defaults(run=_new_key)

    stand_in = commands.add_parser("emulator", help="run a stand-in for fal")
    stand_in.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    stand_in.add_argument("--port", default=8090, type=_port, help="port; 0: any free one (default: %(default)s)")
    stand_in.add_argument(
        "--key", help="the only fal key that is taken (default: any); the emulator's, never fal's own"
    )
    stand_in.set_defaults(run=_emulate)
    ledgercommands.add_to(commands, environ=_environ)
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"should be 0 to {HIGHEST_PORT}")
    return int(text)


def _serve(arguments: argparse.Namespace) -> int:
    environ = _environ(
        FALGW_POLICY=arguments.policy,
        FALGW_WORKERS=arguments.workers,
        FALGW_HOST=arguments.host,
        FALGW_PORT=arguments.port,
    )
    try:
        settings, policy = read_configuration(environ)
    except ConfigurationError as error:
        say(*error.errors, to=sys.stderr)
        return EXIT_CONFIG
    from gateway.processes import supervisor as lifecycle  # noqa: PLC0415 (the data path)

    secret = new_key_text()

    def announce(gateway: Supervisor) -> None:
        if policy is None:
            say_if_read(*welcome_lines(gateway.listeners.address, secret))

    try:
        return lifecycle.run(
            settings,
            policy.edition if policy else _edition_with_key(secret),
            environ=environ,
            log=log_of(settings),
            announce=announce,
        )
    except OSError as error:  # a line for each listener that cannot be had
        say(*(f"cannot start: {line}" for line in str(error).splitlines()), to=sys.stderr)
        return EXIT_FAILED


def _check(arguments: argparse.Namespace) -> int:
    try:
        settings, policy = read_configuration(_environ(FALGW_POLICY=arguments.policy), need_credential=False)
    except ConfigurationError as error:
        say(*error.errors)
        return EXIT_FAILED
    say(summary(settings, policy))
    for fault in policy.absent if policy else ():  # a policy is checked where secrets are not, in a pipeline for one
        say(f"{fault.place}: {fault.message}: `serve` will want it")
    if settings.fal_key is None:
        say("no fal credential is set: `serve` will want FAL_KEY, or FAL_KEY_ID and FAL_KEY_SECRET, or FAL_KEY_FILE")
    for place, message in Access(policy.edition.document, time()).findings() if policy else ():
        say(f"warning: {place}: {message}")
    return 0


def _new_key(arguments: argparse.Namespace) -> int:
    secret = new_key_text()
    digest = f"sha256:{digest_of(secret.encode()).hex()}"
    if arguments.json:
        say(json.dumps({"id": arguments.id, "team": arguments.team, "secret": secret, "digest": digest}))
        return 0
    say(*key_lines(arguments.id, arguments.team, secret=secret, digest=digest))
    return 0


def _emulate(arguments: argparse.Namespace) -> int:
    from gateway.emulator import server as emulator  # noqa: PLC0415 (Tornado)

    try:
        emulator.serve(host=arguments.host, port=arguments.port, key=arguments.key)
    except OSError as error:
        from gateway.processes.listeners import named, reason_of  # noqa: PLC0415 (the data path)

        place = named(arguments.host, arguments.port)
        say(f"cannot start: cannot listen on {place} (--host, --port): {reason_of(error)}", to=sys.stderr)
        return EXIT_FAILED
    return 0


def _environ(**flags: str | None) -> dict[str, str]:
    """Return the environment with the flags that were given laid over it."""
    return {**os.environ, **{name: value for name, value in flags.items() if value is not None}}


def _edition_with_key(secret: str) -> PolicySnapshot:
    return PolicySnapshot(document=document_with_key(digest_of(secret.encode())), team_keys={}, source="")

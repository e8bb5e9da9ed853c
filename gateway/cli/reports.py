"""The commands over the ledger: `usage`, `reconcile`, `backup`. They need no gateway that runs, and no fal credential.

The decision: each says what is wrong in one line on standard error, and ends with 2 for a command line that is none, 78
(EX_CONFIG of sysexits.h) for settings or a database that this release cannot use, 1 for what may pass by itself. What
takes long shows its progress on a terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.cli.console import say
from gateway.config.load import ConfigurationError, read_configuration
from gateway.config.principals import team_credentials
from gateway.config.settings import Settings, SettingsError, load_settings
from gateway.ledger import report_query as question
from gateway.ledger.address import parse_database_url
from gateway.ledger.errors import LedgerNewerError, LedgerUnavailableError, LedgerUnusableError
from gateway.money.reconcile.report import FORMS
from gateway.platform.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.telemetry.log.log import Log

    Environ = Callable[[], Mapping[str, str]]

Value = TypeVar("Value")

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_CONFIG: Final = 78


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser], *, environ: Environ) -> None:
    """Add the commands; `environ` gives the environment when one of them runs."""
    _add_usage(commands, environ)
    _add_reconcile(commands, environ)
    _add_backup(commands, environ)


def _add_usage(commands: argparse._SubParsersAction[argparse.ArgumentParser], environ: Environ) -> None:
    usage = commands.add_parser("usage", help="spend out of the ledger (FALGW_DATABASE_URL)")
    _add_span(usage)
    usage.add_argument(
        "--by",
        type=read_by(question.names),
        default="team,key",
        metavar="NAMES",
        help=f"{', '.join(question.NAMES)} (default: %(default)s)",
    )
    usage.add_argument("--format", default="table", choices=question.FORMS, help="default: %(default)s")
    usage.set_defaults(run=lambda arguments: _usage(arguments, environ()))


def _add_reconcile(commands: argparse._SubParsersAction[argparse.ArgumentParser], environ: Environ) -> None:
    reconcile = commands.add_parser("reconcile", help="correct the ledger by fal's bill (FAL_ADMIN_KEY)")
    _add_span(reconcile)
    reconcile.add_argument("--format", default="table", choices=FORMS, help="default: %(default)s")
    reconcile.add_argument("--dry-run", action="store_true", help="compare, and change nothing")
    reconcile.set_defaults(run=lambda arguments: _reconcile(arguments, environ()))


def _add_backup(commands: argparse._SubParsersAction[argparse.ArgumentParser], environ: Environ) -> None:
    backup = commands.add_parser("backup", help="copy an SQLite ledger, also while gateways run (FALGW_DATABASE_URL)")
    backup.add_argument("file", metavar="FILE", type=Path, help="where to; must not exist")
    backup.set_defaults(run=lambda arguments: _backup(arguments, environ()))


def _add_span(command: argparse.ArgumentParser) -> None:
    moment = "ISO date or time in UTC; a date is its first moment"
    for name, default in (
        ("--since", " (default: the month's first)"),
        ("--until", ", itself left out (default: now)"),
    ):
        command.add_argument(name, type=read_by(question.moment), metavar="D", help=moment + default)


def read_by(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return a reader of an argument that says on the command line what `parse` says in its ValueError."""

    def read(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _usage(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from gateway.ledger.report import rendered, report  # noqa: PLC0415 (36 MiB that `serve` and its workers do without)

    settings = _settings_or_none(environ)
    if settings is None:
        return EXIT_CONFIG
    url = settings.database_url.get_secret_value()
    progress = Progress("reading the ledger")

    def compose(span: question.Span) -> str:
        return rendered(report(url, span, by=arguments.by), form=arguments.format)

    return _report("usage", arguments, compose, progress=progress)


def _reconcile(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from gateway.fal.api.client import HOST, FalApi, FalApiError  # noqa: PLC0415
    from gateway.money.reconcile.command import reconciled  # noqa: PLC0415
    from gateway.money.reconcile.run import SpanError  # noqa: PLC0415 (the ledger's weight, as for `usage`, and libcurl's)

    try:
        settings, policy = read_configuration(environ, need_credential=False)
    except ConfigurationError as error:
        say(*error.errors, to=sys.stderr)
        return EXIT_CONFIG
    if settings.fal_admin_key is None:
        say("FAL_ADMIN_KEY: no key of the scope ADMIN, which alone may read fal's bills", to=sys.stderr)
        return EXIT_CONFIG
    log_of(settings).install()  # invalid lines of the bill are logged on stderr
    place = settings.origin_overrides.get(HOST)
    ca_file = None if settings.ca_file is None else str(settings.ca_file)
    progress = Progress("comparing with fal's bill, lines read")
    api = FalApi(
        settings.fal_admin_key.get_secret_value(),
        base_url=place.url if place else None,
        ca_file=ca_file,
        on_entries=progress.show,
    )
    url, form = settings.database_url.get_secret_value(), arguments.format
    credentials = team_credentials(policy.edition.document) if policy is not None else None

    def compose(span: question.Span) -> str:
        return reconciled(api, url, span, credentials=credentials, form=form, dry_run=arguments.dry_run)

    faults = (FalApiError, LedgerUnavailableError, LedgerUnusableError, SpanError)
    return _report("reconcile", arguments, compose, progress=progress, faults=faults)


def _backup(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from gateway.ledger.backup import BackupError, back_up  # noqa: PLC0415 (the ledger's weight, as for `usage`)
    from gateway.ledger.ledger import Ledger  # noqa: PLC0415

    settings = _settings_or_none(environ)
    if settings is None:
        return EXIT_CONFIG
    url = settings.database_url.get_secret_value()
    source = parse_database_url(url).file
    if source is None:
        say("backup: the ledger is in PostgreSQL; use pg_dump or the server's own backups", to=sys.stderr)
        return EXIT_USAGE
    ledger = Ledger(url)
    try:
        with contextlib.suppress(LedgerNewerError):  # a copy is a copy
            ledger.require_schema()
        with Progress("copying the ledger") as progress:
            size_bytes = back_up(source, arguments.file, shown=progress.show)
    except (BackupError, LedgerUnavailableError, LedgerUnusableError) as error:
        say(f"backup: {error}", to=sys.stderr)
        return EXIT_FAILED
    finally:
        ledger.close()
    say(f"{arguments.file}: {size_bytes:,} bytes")
    return 0


def _report(
    command: str,
    arguments: argparse.Namespace,
    compose: Callable[[question.Span], str],
    *,
    progress: Progress,
    faults: tuple[type[Exception], ...] = (LedgerUnavailableError, LedgerUnusableError),
) -> int:
    """Print what `compose` makes of the span asked for, or why it can't (one of `faults`), and return the exit code."""
    try:
        span = question.span_of(arguments.since, arguments.until, now=datetime.now(UTC))
    except ValueError as error:
        say(f"{command}: {error}", to=sys.stderr)
        return EXIT_USAGE
    try:
        with progress:
            text = compose(span)
        sys.stdout.write(text)
    except LedgerNewerError as error:
        say(f"{command}: {error}", to=sys.stderr)
        return EXIT_CONFIG
    except faults as error:
        say(f"{command}: {error}", to=sys.stderr)
        return EXIT_FAILED
    return 0


def _settings_or_none(environ: Mapping[str, str]) -> Settings | None:
    """Return the settings of a command that needs no fal credential; None once it was said what is wrong with them."""
    try:
        return load_settings(environ, need_credential=False)
    except SettingsError as error:
        say(*str(error).splitlines(), to=sys.stderr)
        return None


def log_of(settings: Settings) -> Log:
    """Return the log of a command: on standard error, as the settings say."""
    from gateway.telemetry.log.log import Log  # noqa: PLC0415 (structlog)

    console = settings.log_format == "console" or (settings.log_format is None and sys.stderr.isatty())
    return Log(level=settings.log_level, console=console)

"""The command line: reads options into settings, and calls what does the work.

A flag goes before the environment, the environment before the file given by --config (docs/configuration.md). The
gateway and the worker are imported by name, only by the commands that run them: this package knows neither.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from selfhost_transport.commands import operator_groups
from selfhost_transport.commands.children import end_with_parent
from selfhost_transport.commands.operator import Place, run_cancel, run_cancel_all, run_inspect, run_list
from selfhost_transport.commands.options import Key, Url
from selfhost_transport.errors import InvalidArgument, TransportError
from selfhost_transport.loadtest.command import register as register_loadtest
from selfhost_transport.logs import configure_logging
from selfhost_transport.settings import ENV_PREFIX, Settings, load_settings, options
from selfhost_transport.version import __version__

_TRACEBACK = f"{ENV_PREFIX}TRACEBACK"

app = typer.Typer(
    name="selfhost-transport",
    help="A self-hosted session layer for AI conversations on Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Options are also environment variables, SELFHOST_TRANSPORT_<OPTION>, and keys of the file given by --config.",
)


def _setting(name: str, help: str, *flags: str, default: str | None = None) -> Any:  # noqa: A002
    """An option that is a setting, too: where it is not given, the environment, the file and the default count."""
    shown = str(options()[name].default) if default is None else default
    return typer.Option(*flags, help=help, show_default=shown)


Config = Annotated[Path | None, typer.Option(help="TOML file with the configuration.", show_default="none")]
Redis = Annotated[
    str | None,
    _setting(
        "redis", "Address of Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://."
    ),
]
DevRedis = Annotated[str | None, _setting("redis", "Address of Redis.", default="an embedded one")]
Prefix = Annotated[str | None, _setting("redis_prefix", "First part of every key.", "--redis-prefix")]
Host = Annotated[str | None, _setting("host", "Address to listen on.")]
Port = Annotated[int | None, _setting("port", "TCP port; 0 = any free port.")]
Processes = Annotated[int | None, _setting("processes", "Gateway processes that share the port.")]
TlsCert = Annotated[
    Path | None,
    _setting("tls_cert", "Certificate, PEM: speak TLS. Read again when it changes.", default="plain HTTP"),
]
TlsKey = Annotated[
    Path | None,
    _setting("tls_key", "Private key of the certificate, PEM.", default="in the certificate's file"),
]
Parent = Annotated[int | None, typer.Option(hidden=True)]
LogFormat = Annotated[str | None, _setting("log_format", "Form of the log: text or json.", "--log-format")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log everything, as log_level = debug.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ClientId = Annotated[
    str | None, typer.Option("--client-id", help="A person instead of a session, by client id.")
]
OfSessions = Annotated[
    list[str] | None,
    typer.Option(
        "--session", help="With --client-id: in this session only; may be repeated. Needed with --url."
    ),
]
Dev = Annotated[
    bool,
    typer.Option("--dev", help="Use the settings of `dev`: its Redis, its key, its agent for all channels."),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"selfhost-transport {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """A self-hosted session layer for AI conversations on Redis."""


@app.command()
def dev(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:OBJECT]", help="Default: the scripted model.")
    ] = None,
    host: Host = None,
    port: Port = None,
    data_dir: Annotated[Path | None, _setting("data_dir", "Data folder of the embedded Redis.")] = None,
    redis: DevRedis = None,
    redis_prefix: Prefix = None,
    config: Config = None,
    processes: Processes = None,
    log_format: LogFormat = None,
) -> None:
    """Everything in one process group: Redis, gateway, a worker with your agent or the scripted model, the chat page."""
    from selfhost_transport.commands.dev import run_dev

    settings = load_settings(
        config, host=host, port=port, data_dir=data_dir, redis=redis, redis_prefix=redis_prefix,
        processes=processes, log_format=log_format,
    )  # fmt: skip
    _log(settings)
    # Read here first: what is wrong with it is said in one line, before anything is started.
    agents = () if target is None else tuple(_call("agent_worker.runtime.main", "find_worker", target).agents)
    run_dev(settings, target, agents)


@app.command()
def gateway(
    redis: Redis = None,
    host: Host = None,
    port: Port = None,
    processes: Processes = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    verbose: Verbose = False,
    log_format: LogFormat = None,
    parent: Parent = None,
) -> None:
    """Serve clients: the Ably realtime protocol, REST and the HTTP API. Prints `ready http://HOST:PORT`, or `https://`."""
    settings = load_settings(
        config, redis=redis, host=host, port=port, processes=processes, tls_cert=tls_cert, tls_key=tls_key,
        redis_prefix=redis_prefix, log_format=log_format,
    )  # fmt: skip
    _log(settings, verbose=verbose)
    if parent is not None:
        end_with_parent(parent)
    _check_redis(settings)
    _call("gateway.server", "run_gateway", settings.for_dev() if settings.gateway.dev else settings)


@app.command()
def worker(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:OBJECT]", help="Default: the scripted model.")
    ] = None,
    redis: Redis = None,
    concurrency: Annotated[int | None, _setting("concurrency", "Turns to run at once.")] = None,
    metrics_port: Annotated[
        int | None,
        _setting("metrics_port", "TCP port for Prometheus metrics; 0 = any free port.", default="no metrics"),
    ] = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    once: Annotated[bool, typer.Option("--once", help="Stop when no turn is waiting or running.")] = False,
    verbose: Verbose = False,
    log_format: LogFormat = None,
    parent: Parent = None,
) -> None:
    """Run agents. Prints `ready worker ID` once it takes turns; on SIGTERM hands back unfinished turns."""
    settings = load_settings(
        config,
        redis=redis,
        concurrency=concurrency,
        metrics_port=metrics_port,
        redis_prefix=redis_prefix,
        log_format=log_format,
    )
    _log(settings, verbose=verbose)
    if parent is not None:
        end_with_parent(parent)
    _call("agent_worker.runtime.main", "run_worker", settings, target, once)


@app.command()
def doctor(
    channel: Annotated[
        str | None, typer.Argument(help="Also show the rule that applies to this channel.")
    ] = None,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    as_dev: Dev = False,
) -> None:
    """Check that Redis keeps the promises made, and explain the configuration. Exit status 1 if not."""
    from selfhost_transport.commands.doctor import run_doctor

    settings = load_settings(config, redis=redis, redis_prefix=redis_prefix)
    healthy = run_doctor(_as_dev(settings) if as_dev else settings, channel)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def inspect(
    session: Annotated[
        str | None, typer.Argument(help="Name of the session (channel); without it, the sessions are listed.")
    ] = None,
    ended: Annotated[int, typer.Option(help="Number of recently ended turns to show.")] = 10,
    entries: Annotated[int, typer.Option(help="Number of recent entries to show.")] = 10,
    prefix: Annotated[str, typer.Option(help="Prefix of the names to list.", show_default="all")] = "",
    limit: Annotated[int, typer.Option(help="Maximum number of sessions to list.")] = 100,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    as_dev: Dev = False,
) -> None:
    """Show a session: its open turns with owners, workers and leases, how the others ended, its queue, its last entries."""
    place = _place(load_settings(config, redis=redis, redis_prefix=redis_prefix), url, key, as_dev=as_dev)
    if session is None:
        run_list(place, prefix, limit=limit, as_json=as_json)
        return
    run_inspect(place, session, ended=ended, entries=entries, as_json=as_json)


@app.command()
def cancel(
    session: Annotated[str | None, typer.Argument(help="Name of the session (channel).")] = None,
    turn: Annotated[str | None, typer.Option(help="Id of the turn.")] = None,
    client: Annotated[str | None, typer.Option(help="Client id: all turns it owns.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All open turns of the session.")] = False,
    prefix: Annotated[
        str | None, typer.Option(help="With --all, instead of a session: all sessions with this prefix.")
    ] = None,
    by: Annotated[str, typer.Option(help="Name recorded as the author of the cancel.")] = "operator",
    force: Annotated[bool, typer.Option("--force", help="Do not ask the agents' hooks.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    as_dev: Dev = False,
) -> None:
    """Cancel turns at once; without --url no gateway and no worker is needed. Name one of --turn, --client, --all.

    With --all --prefix PREFIX and no session: in every session whose name begins with PREFIX.
    """
    place = _place(load_settings(config, redis=redis, redis_prefix=redis_prefix), url, key, as_dev=as_dev)
    if session is None or prefix is not None:
        if prefix is None or session is not None or not everything or turn or client:
            raise InvalidArgument("name one session, or no session and --all --prefix PREFIX")
        run_cancel_all(place, prefix, by=by, force=force, as_json=as_json)
        return
    run_cancel(
        place,
        session,
        turn=turn,
        client=client,
        everything=everything,
        by=by,
        force=force,
        as_json=as_json,
    )


@app.command()
def export(
    session: Annotated[
        str | None, typer.Argument(help="Everything of this session now, instead of turns that end.")
    ] = None,
    client_id: ClientId = None,
    sessions: OfSessions = None,
    to: Annotated[
        str,
        typer.Option(
            help="File to append one line of JSON per turn to; of a session, a new one; - = standard output."
        ),
    ] = "-",
    name: Annotated[
        str, typer.Option(help="Name of the exporter: each gets every turn and resumes where it stopped.")
    ] = "default",
    once: Annotated[bool, typer.Option("--once", help="Stop when no turn is waiting.")] = False,
    lease: Annotated[
        float, typer.Option(help="Seconds without progress after which a turn is exported again.")
    ] = 30.0,
    forget: Annotated[
        bool, typer.Option("--forget", help="Delete the exporter of this name and the turns queued for it.")
    ] = False,
    verbose: Verbose = False,
    url: Url = None,
    key: Key = None,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    as_dev: Dev = False,
) -> None:
    """Write every turn that ends, with its whole messages, as a line of JSON; each at least once.

    An exporter begins with the turns that end after it was started for the first time. With a session: everything that the
    deployment holds of it now.
    """
    if session is not None or client_id is not None:
        from selfhost_transport.commands.personal_data import run_export_person, run_export_session

        place = _place(load_settings(config, redis=redis, redis_prefix=redis_prefix), url, key, as_dev=as_dev)
        if _names_session(session, client_id):
            run_export_session(place, session or "", to)
        else:
            run_export_person(place, client_id or "", sessions or (), to)
        return
    from selfhost_transport.commands.export import run_export, run_forget

    settings = load_settings(config, redis=redis, redis_prefix=redis_prefix)
    _log(settings, verbose=verbose)
    if forget:
        run_forget(settings, name)
        return
    run_export(settings, to, name=name, once=once, lease_s=lease)


@app.command()
def erase(
    session: Annotated[str | None, typer.Argument(help="The session.")] = None,
    client_id: ClientId = None,
    sessions: OfSessions = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Erase; without it, only show how much there is.")
    ] = False,
    free: Annotated[bool, typer.Option("--free", help="Let the name be used again at once.")] = False,
    by: Annotated[
        str, typer.Option(help="Whom to name in the log, and in the cancel of turns.")
    ] = "operator",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    as_dev: Dev = False,
) -> None:
    """Erase everything that the deployment holds of a session, or of a person, for good; turns that run are cancelled first.

    Clients that are attached get an error that says so. For a day nothing can be sent to its name.
    """
    from selfhost_transport.commands.personal_data import run_erase_person, run_erase_session

    place = _place(load_settings(config, redis=redis, redis_prefix=redis_prefix), url, key, as_dev=as_dev)
    if _names_session(session, client_id):
        run_erase_session(place, session or "", by=by, yes=yes, free=free, as_json=as_json)
    else:
        run_erase_person(place, client_id or "", sessions or (), by=by, yes=yes, as_json=as_json)


def _names_session(session: str | None, client_id: str | None) -> bool:
    """Whether a session is meant, not a person. Raises InvalidArgument for neither, and for both."""
    if (session is None) == (client_id is None):
        raise InvalidArgument("name one session, or a person by --client-id")
    return session is not None


@app.command("import")
def import_channels(
    channels: Annotated[
        list[str] | None, typer.Argument(metavar="[CHANNEL]...", help="Channels of the source.")
    ] = None,
    source: Annotated[
        str, typer.Option("--from", help="Address of the source: its REST interface.")
    ] = "https://main.realtime.ably.net",
    key: Annotated[
        str | None,
        typer.Option(envvar="ABLY_API_KEY", help="Key of the source, with `history`: APP.KEYID:SECRET."),
    ] = None,
    token: Annotated[str | None, typer.Option(help="A token of the source instead of a key.")] = None,
    channels_file: Annotated[
        str | None,
        typer.Option("--channels", help="File with a channel, or channel<TAB>session, per line; - = input."),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--as", help="Name of the session, if not that of the one channel.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count; write nothing.")] = False,
    as_json: AsJson = False,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    as_dev: Dev = False,
) -> None:
    """Take conversations over: the history of channels of Ably's cloud, or of another deployment.

    Order, ids, clients and times stay. Run it again to go on after an interruption, or for what is new: what is there is
    not imported twice. Exit status 1 if a channel could not be imported.
    """
    from selfhost_transport.commands.import_channels import channels_of, run_import
    from selfhost_transport.importer.source import Source

    settings = load_settings(config, redis=redis, redis_prefix=redis_prefix)
    wanted = channels_of(channels or [], channels_file, session)
    reader = Source(source, key=None if token is not None else key, token=token)
    settings = _as_dev(settings) if as_dev else settings
    raise typer.Exit(0 if run_import(settings, reader, wanted, dry_run=dry_run, as_json=as_json) else 1)


@app.command()
def migrate(
    source: Annotated[str, typer.Option("--from", help="Address of the Redis that has the deployment.")],
    from_prefix: Annotated[
        str | None, typer.Option(help="First part of its keys.", show_default="as --redis-prefix")
    ] = None,
    redis: Redis = None,
    config: Config = None,
    redis_prefix: Prefix = None,
    buckets: Annotated[
        int | None,
        typer.Option(
            help="A multiple of the present number.",
            show_default="on a Cluster 1024, else the present number",
        ),
    ] = None,
) -> None:
    """Move a deployment to another Redis (`--redis`): from one server to a Cluster, back, or into more buckets.

    Stop all gateways and workers before, and start them on the new Redis after; clients resume where they were. Run it
    again to go on after an interruption.
    """
    from selfhost_transport.commands.migrate import run_migrate

    target = load_settings(config, redis=redis, redis_prefix=redis_prefix, buckets=buckets)
    origin = load_settings(redis=source, redis_prefix=from_prefix or target.redis.prefix)
    run_migrate(origin, target)


@app.command()
def token(
    client_id: Annotated[str | None, typer.Option(help="Client id of the holder; * = any.")] = None,
    capability: Annotated[str | None, typer.Option(help='JSON: {"pattern": ["operation"]}.')] = None,
    ttl: Annotated[str, typer.Option(help="Lifetime: 30m, 12h, 7d.")] = "1h",
    key: Annotated[str | None, typer.Option(help="Name of the signing key; default: the first.")] = None,
    config: Config = None,
    as_dev: Dev = False,
) -> None:
    """Issue a token (an Ably JWT) for a client."""
    from selfhost_transport.commands.token import issue

    settings = load_settings(config)
    if as_dev:
        settings = settings.for_dev()
    typer.echo(issue(settings, key=key, client_id=client_id, capability=capability, ttl=ttl))


@app.command("fake-provider")
def fake_provider(
    first_token: Annotated[str, typer.Option(help="Seconds to the first token.")] = "0.3",
    rate: Annotated[str, typer.Option(help="Tokens per second; 0 = as fast as they are read.")] = "50",
    tokens: Annotated[str, typer.Option(help="Tokens of an answer.")] = "200",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="KIND=PERCENT, several times: rate_limit, overloaded, failed, stream_error, dropped, silent."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same request the same answer.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 = any free port.")] = 8090,
    key: Annotated[str, typer.Option(help="API key that callers have to show.", show_default="any")] = "",
    parent: Parent = None,
) -> None:
    """A model provider that costs nothing: Chat Completions, Responses and Messages, streamed. Prints `ready http://HOST:PORT`.

    --first-token, --rate and --tokens take a number, uniform:LOW,HIGH, normal:MEAN,DEVIATION, lognormal:MEDIAN,SIGMA or
    exponential:MEAN.
    """
    if parent is not None:
        end_with_parent(parent)
    options = (first_token, rate, tokens, fault or [], seed, host, port, key)
    _call("agent_worker.fake_provider.command", "run", *options)


app.add_typer(operator_groups.dead, name="dead")
app.add_typer(operator_groups.workers, name="workers")
app.add_typer(operator_groups.webhooks, name="webhooks")
app.add_typer(operator_groups.push, name="push")
register_loadtest(app)


def main() -> None:
    """Run the command line; an error of ours is one line, without a traceback."""
    try:
        app()
    except TransportError as error:
        reason = f"error {error.info.code}: {error}"
    except BrokenPipeError:
        # The reader closed the pipe. Python would complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except OSError as error:
        reason = f"error 50000: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        reason = f"error 50000: {type(error).__name__}: {error} (a bug in this program; {_TRACEBACK}=1 shows where)"
    print(reason, file=sys.stderr)
    raise SystemExit(1)


def _as_dev(settings: Settings) -> Settings:
    """The settings with what `dev` adds, its Redis included where no other is given."""
    from selfhost_transport.commands.dev_folder import redis_of_dev

    settings = settings.for_dev()
    if settings.redis.url_given:
        return settings
    redis = settings.redis.model_copy(update={"url": redis_of_dev(settings.data_dir)})
    return settings.model_copy(update={"redis": redis})


def _place(settings: Settings, url: str | None, key: str | None, *, as_dev: bool) -> Place:
    """Where a command of operators works; a key from the environment does not matter without an address."""
    return Place(
        _as_dev(settings) if as_dev and url is None else settings, url, key if url is not None else None
    )


def _check_redis(settings: Settings) -> None:
    """Before a second is spent on importing a server: a wrong Redis is reported at once."""
    from selfhost_transport.redis_io.preflight import check_way_in

    asyncio.run(check_way_in(settings.redis.url))


def _call(module: str, function: str, *arguments: object) -> Any:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise TransportError(f"the package {module.partition('.')[0]} is not installed") from error
    return getattr(found, function)(*arguments)


def _log(settings: Settings, *, verbose: bool = False) -> None:
    """Log as the settings say."""
    log = settings.log
    configure_logging(log.format, "debug" if verbose else log.level, settings.secrets)


if __name__ == "__main__":
    main()

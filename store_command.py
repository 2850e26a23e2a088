"""`raybolt store …`: a store on the command line. Each function is a command."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raybolt import console, store_look, store_move
from raybolt.store.errors import InvalidValue
from raybolt.store_source import RAY_SCHEME, checked_folder, connected

if TYPE_CHECKING:
    from raybolt.store.client import StoreClient

DAY_SECONDS = 86_400
store = typer.Typer(
    no_args_is_help=True,
    help="Look at a store, move it, serve it. STORE is a folder, http://HOST:PORT, or ray://NAME.",
)
store.command()(store_look.ls)
store.command()(store_look.show)
store.command()(store_look.stats)
store.command()(store_move.export)
store.command(name="import")(store_move.import_)
store.command()(store_move.compact)


@store.command()
def serve(
    where: Annotated[
        str,
        typer.Argument(metavar="STORE", help="Folder of the store, made if there is none; or ray://NAME."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 is any free one.")] = 4747,
    token: Annotated[
        list[str] | None,
        typer.Option(help="What clients must send; may be given twice.", envvar="RAYBOLT_STORE_TOKEN"),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), for TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    max_body_mb: Annotated[int, typer.Option(min=1, max=256, help="Largest request, in MB.")] = 64,
    retention_days: Annotated[
        float | None, typer.Option(help="Delete rollouts that ended longer ago; for a folder.")
    ] = None,
) -> None:
    """Serve a store over HTTP, until Ctrl-C: for HttpStore, curl and OpenTelemetry exporters.

    Without a token, only this machine can be served.
    """
    from raybolt.store import LocalStore, blocking
    from raybolt.store import serve as start_server

    served: StoreClient
    if where.startswith(RAY_SCHEME):
        if retention_days is not None:
            raise InvalidValue(
                f"--retention-days is {retention_days:g}, but {where} runs already; give RayStore.create its "
                "retention_seconds"
            )
        served = connected(where)
    else:
        retention = None if retention_days is None else retention_days * DAY_SECONDS
        served = LocalStore(checked_folder(where), keep_in_flight=True, retention_seconds=retention)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, for whoever runs it as a service
    try:
        with start_server(
            served, host=host, port=port, tokens=token or (), cert=cert, key=key,
            max_body_bytes=max_body_mb * 2**20,
        ) as server:  # fmt: skip
            console.out.print(
                f"serving {where} at {server.url}; what it takes is at {server.url}/docs",
                soft_wrap=True,
            )
            server.wait()
    except KeyboardInterrupt:
        console.out.print("stopped")
    finally:
        blocking(served.close())

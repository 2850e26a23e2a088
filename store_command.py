"""`raybolt store …`: a store on the command line. Each function is a command."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from raybolt import console, store_folder
from raybolt.store.errors import InvalidValue

store = typer.Typer(no_args_is_help=True, help="Look at a store, move it, serve it.")
store.command()(store_folder.ls)
store.command()(store_folder.show)
store.command()(store_folder.stats)
store.command()(store_folder.export)
store.command(name="import")(store_folder.import_)
store.command()(store_folder.compact)


@store.command()
def serve(
    path: Annotated[Path | None, typer.Argument(help="Folder of the store; made if there is none.")] = None,
    ray_name: Annotated[
        str | None, typer.Option("--ray", help="Serve the running RayStore of this name instead.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 is any free one.")] = 4747,
    token: Annotated[
        list[str] | None,
        typer.Option(help="What clients must send; may be given twice.", envvar="RAYBOLT_STORE_TOKEN"),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), for TLS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    max_body_mb: Annotated[int, typer.Option(help="Largest request, in MB.")] = 64,
) -> None:
    """Serve a store over HTTP, until Ctrl-C: for HttpStore, curl and OpenTelemetry exporters.

    Without a token, only this machine can be served.
    """
    from raybolt.store import LocalStore, blocking
    from raybolt.store import serve as start_server
    from raybolt.store.client import StoreClient

    if (path is None) == (ray_name is None):
        raise InvalidValue("give either the folder of a store or --ray NAME")
    if ray_name is not None:
        import ray

        from raybolt.store import RayStore

        ray.init(address="auto", log_to_driver=False)
        served: StoreClient = RayStore.connect(ray_name)
    else:
        served = LocalStore(path, keep_in_flight=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, for whoever runs it as a service
    try:
        with start_server(
            served, host=host, port=port, tokens=token or (), cert=cert, key=key,
            max_body_bytes=max_body_mb * 2**20,
        ) as server:  # fmt: skip
            console.out.print(
                f"serving {path or ray_name} at {server.url}; what it takes is at {server.url}/docs",
                soft_wrap=True,
            )
            server.wait()
    except KeyboardInterrupt:
        console.out.print("stopped")
    finally:
        blocking(served.close())

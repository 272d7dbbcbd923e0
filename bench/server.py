"""Serves MLflow's pages on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench.files import UserError
from bench.tracking import open_mlflow, tracking_uri

_PATIENCE = 60  # seconds until the server must answer


def serve(results: Path, port: int, announce: Callable[[str], None]) -> None:
    """Runs MLflow's own server until it is stopped, and announces the link once it answers.

    Args:
        results: Folder whose runs are shown.
        port: Port on the loopback address.
        announce: Takes the line with the link.

    Raises:
        UserError: if nothing was logged yet, the port is taken, or the server does not start.
    """
    if not tracking_uri(results).startswith("sqlite:"):
        raise UserError(f"runs are logged to {tracking_uri(results)}, as MLFLOW_TRACKING_URI says; its own pages show them")
    if not (results / "mlflow.db").exists():
        raise UserError(f"nothing was logged to {results} yet; run `bench run` first")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UserError(f"port {port} is taken; choose another with --port") from None
    link = f"http://127.0.0.1:{port}/{_page(results)}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", tracking_uri(results)]
    log = results / "mlflow-server.log"
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (
        log.open("w", encoding="utf-8") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True) as server,
    ):
        try:
            _wait(server, port, log)
            announce(f"MLflow shows the runs at {link} (stop with Ctrl-C)")
            server.wait()
        except KeyboardInterrupt:
            announce("stopped")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)  # the server has workers of its own


def _page(results: Path) -> str:
    """The page of the newest experiment with its runs: the server's first page hides them."""
    client = open_mlflow(results)
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(everywhere, "tags.kind = 'trade-off'", max_results=1)
    return f"#/experiments/{runs[0].info.experiment_id}/runs" if runs else "#/experiments"


def _wait(server: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UserError(f"MLflow's server did not start; {log} says why")

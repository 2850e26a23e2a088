"""Schemathesis holds the server against its own OpenAPI document."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from store_http import served

from raybolt.store import LocalStore

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="needs the development packages")
def test_the_server_keeps_what_its_description_promises(tmp_path: Path) -> None:
    with served(LocalStore(tmp_path / "store")) as server:
        run = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run", f"{server.url}/openapi.json", "--no-color",
                "--checks", ",".join(CHECKS), "--max-examples", "10", "--phases", "coverage,fuzzing",
                "--seed", "7",
            ],
            cwd=tmp_path, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:]
    assert "Tested: 4" in run.stdout  # forty operations and more

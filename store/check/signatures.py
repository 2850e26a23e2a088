"""The methods have the names, and take what code written for Agent Lightning 0.3 gives them."""

import inspect

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that
from raybolt.store.errors import StoreError
from raybolt.store.types import UNSET

REQUIRED = inspect.Parameter.empty
_NEW_ROLLOUT = (
    ("input", REQUIRED),
    ("mode", None),
    ("resources_id", None),
    ("config", None),
    ("metadata", None),
)
_POSITIONAL: dict[str, tuple[tuple[str, object], ...]] = {
    "start_rollout": (*_NEW_ROLLOUT, ("worker_id", None)),
    "enqueue_rollout": _NEW_ROLLOUT,
    "enqueue_many_rollouts": (("rollouts", REQUIRED),),
    "dequeue_rollout": (("worker_id", None),),
    "start_attempt": (("rollout_id", REQUIRED), ("worker_id", None)),
    "add_many_spans": (("spans", REQUIRED),),
    "add_span": (("span", REQUIRED),),
    "add_otel_span": (
        ("rollout_id", REQUIRED),
        ("attempt_id", REQUIRED),
        ("readable_span", REQUIRED),
        ("sequence_id", None),
    ),
    "query_attempts": (("rollout_id", REQUIRED),),
    "get_rollout_by_id": (("rollout_id", REQUIRED),),
    "get_latest_attempt": (("rollout_id", REQUIRED),),
    "get_resources_by_id": (("resources_id", REQUIRED),),
    "get_latest_resources": (),
    "get_next_span_sequence_id": (("rollout_id", REQUIRED), ("attempt_id", REQUIRED)),
    "get_many_span_sequence_ids": (("rollout_attempt_ids", REQUIRED),),
    "query_spans": (("rollout_id", REQUIRED), ("attempt_id", None)),
    "add_resources": (("resources", REQUIRED),),
    "update_resources": (("resources_id", REQUIRED), ("resources", REQUIRED)),
    "update_rollout": (
        ("rollout_id", REQUIRED),
        ("input", UNSET),
        ("mode", UNSET),
        ("resources_id", UNSET),
        ("status", UNSET),
        ("config", UNSET),
        ("metadata", UNSET),
    ),
    "update_attempt": (
        ("rollout_id", REQUIRED),
        ("attempt_id", REQUIRED),
        ("status", UNSET),
        ("worker_id", UNSET),
        ("last_heartbeat_time", UNSET),
        ("metadata", UNSET),
    ),
    "get_worker_by_id": (("worker_id", REQUIRED),),
    "update_worker": (("worker_id", REQUIRED), ("heartbeat_stats", UNSET)),
    "statistics": (),
    "otlp_traces_endpoint": (),
}
"""By method: the parameters that may be given by position, in order."""
_PAGE: dict[str, object] = {"sort_order": "asc", "limit": -1, "offset": 0}
_BY_NAME: dict[str, dict[str, object]] = {
    "dequeue_many_rollouts": {"limit": 1, "worker_id": None},
    "query_rollouts": {
        "status_in": None,
        "rollout_id_in": None,
        "rollout_id_contains": None,
        "filter_logic": "and",
        "sort_by": None,
        **_PAGE,
    },
    "query_attempts": {"sort_by": "sequence_id", **_PAGE},
    "query_resources": {"resources_id": None, "resources_id_contains": None, "sort_by": None, **_PAGE},
    "wait_for_rollouts": {"rollout_ids": REQUIRED, "timeout": None},
    "query_spans": {
        "trace_id": None,
        "trace_id_contains": None,
        "span_id": None,
        "span_id_contains": None,
        "parent_id": None,
        "parent_id_contains": None,
        "name": None,
        "name_contains": None,
        "filter_logic": "and",
        **_PAGE,
    },
    "query_workers": {
        "status_in": None,
        "worker_id_contains": None,
        "filter_logic": "and",
        "sort_by": None,
        **_PAGE,
    },
}
"""By method: the parameters that are given by name, with their defaults."""


@check("Each method takes by position what Agent Lightning 0.3's takes, in that order, with those defaults")
async def positional_parameters(store: LightningStore) -> None:
    for method, expected in _POSITIONAL.items():
        parameters = inspect.signature(getattr(store, method)).parameters.values()
        seen = tuple((p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
        expect(seen, expected, f"positional parameters of {method}")


@check("Each method takes by name what Agent Lightning 0.3's takes, with those defaults")
async def keyword_parameters(store: LightningStore) -> None:
    for method, expected in _BY_NAME.items():
        parameters = inspect.signature(getattr(store, method)).parameters
        seen = {name: p.default for name, p in parameters.items() if name in expected}
        expect(seen, expected, f"keyword parameters of {method}")


@check("What is ours beyond Agent Lightning 0.3 can only be given by name, or has a default")
async def additions_are_optional(store: LightningStore) -> None:
    for method in {*_POSITIONAL, *_BY_NAME}:
        known = {name for name, _ in _POSITIONAL.get(method, ())} | set(_BY_NAME.get(method, ()))
        ours = [
            p for p in inspect.signature(getattr(store, method)).parameters.values() if p.name not in known
        ]
        expect(
            [p.name for p in ours if p.default is REQUIRED], [], f"further required parameters of {method}"
        )


@check("capabilities says of each ability whether the store has it")
async def capabilities_are_booleans(store: LightningStore) -> None:
    seen = store.capabilities
    expect(
        set(seen),
        {"thread_safe", "async_safe", "zero_copy", "otlp_traces", "durable"},
        "names of capabilities",
    )
    for name, value in seen.items():
        expect_that(isinstance(value, bool), f"capability {name}", expected="True or False", seen=value)


@check("A store that takes OTLP/HTTP traces says where to; another one says that it takes none")
async def traces_endpoint(store: LightningStore) -> None:
    if store.capabilities["otlp_traces"]:
        endpoint = store.otlp_traces_endpoint()
        expect_that(
            endpoint.startswith("http") and endpoint.endswith("/v1/traces"),
            "otlp_traces_endpoint()",
            expected="http…/v1/traces",
            seen=endpoint,
        )
        return
    try:
        store.otlp_traces_endpoint()
    except StoreError as error:
        expect_that("OTLP" in str(error), "the error", expected="that it takes no OTLP", seen=str(error))
    else:
        expect("no error", "StoreError", "otlp_traces_endpoint() of a store that takes no OTLP")


SIGNATURES = (
    positional_parameters,
    keyword_parameters,
    additions_are_optional,
    capabilities_are_booleans,
    traces_endpoint,
)

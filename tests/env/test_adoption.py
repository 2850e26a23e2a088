"""Spans of a foreign OpenTelemetry tracer in a run."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_runs import HELLO, finish, new_run

import raybolt
from raybolt.env.executor import run_in_thread
from raybolt.store import names


@pytest.fixture
def exporter(monkeypatch) -> Iterator[InMemorySpanExporter]:
    """What the user's own exporter gets, with a global provider as a program sets one."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def by_name(run):
    return {span.name: span for span in run.recorder.spans}


async def test_spans_of_the_agents_own_tracer_land_under_the_run_with_their_nesting(exporter):
    async def agent(task, policy):
        await policy.complete(HELLO)
        tracer = trace.get_tracer("their.library")
        with raybolt.operation("retrieve"), tracer.start_as_current_span("query") as query:
            query.set_attribute("db.system", "sqlite")
            query.set_attribute("db.sizes", (1, 2))
            query.add_event("row", {"n": 1})
            with tracer.start_as_current_span("parse"):
                pass
        return 1.0

    run = new_run(agent)
    await finish(run)
    spans = by_name(run)
    query, parse = spans["query"], spans["parse"]
    assert query.parent_id == spans["retrieve"].span_id
    assert parse.parent_id == query.span_id
    assert query.attributes["db.system"] == "sqlite"
    assert query.attributes["db.sizes"] == [1, 2]
    assert query.attributes[names.KIND] == "otel"
    assert query.attributes[names.SCOPE_NAME] == "their.library"
    assert [(event.name, event.attributes) for event in query.events] == [("row", {"n": 1})]
    assert query.start_time < parse.start_time < parse.end_time < query.end_time
    assert [span.name for span in exporter.get_finished_spans()] == ["parse", "query"]


async def test_a_failed_span_is_adopted_as_failed(exporter):
    async def agent(task, policy):
        await policy.complete(HELLO)
        try:
            with trace.get_tracer("t").start_as_current_span("query"):
                raise ValueError("no table")
        except ValueError:
            return 0.0

    run = new_run(agent)
    await finish(run)
    span = by_name(run)["query"]
    assert (span.status, span.status_message) == ("error", "ValueError: no table")


async def test_each_run_adopts_its_own_also_from_threads(exporter):
    def work():
        with trace.get_tracer("t").start_as_current_span("inside"):
            raybolt.emit("mark")

    async def agent(task, policy):
        await policy.complete(HELLO)
        await run_in_thread(work)
        return 1.0

    runs = [new_run(agent) for _ in range(4)]
    for run in runs:
        await finish(run)
    with trace.get_tracer("t").start_as_current_span("outside"):
        pass
    for run in runs:
        names_seen = [span.name for span in run.recorder.spans]
        assert names_seen.count("inside") == 1
        assert "outside" not in names_seen
    assert len(exporter.get_finished_spans()) == 5


async def test_a_tool_that_reports_both_ways_counts_once(exporter):
    async def agent(task, policy):
        await policy.complete(HELLO)
        with trace.get_tracer("autogen").start_as_current_span("execute_tool add") as span:
            span.set_attribute(names.OPERATION, names.EXECUTE_TOOL)
        return 1.0

    run = new_run(agent)
    await finish(run)
    assert by_name(run)["execute_tool add"].attributes[names.OPERATION] == "execute_tool"
    assert run.trajectory.tool_spans == ()


async def test_a_span_left_open_ends_with_the_run(exporter):
    async def agent(task, policy):
        await policy.complete(HELLO)
        trace.get_tracer("t").start_span("forgotten")
        return 1.0

    run = new_run(agent)
    await finish(run)
    assert by_name(run)["forgotten"].status_message == "the run ended before this did"

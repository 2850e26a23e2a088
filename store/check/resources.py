"""Resources and their versions."""

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, present, refused
from raybolt.store.errors import InvalidValue
from raybolt.store.resource_kinds import LLM, PromptTemplate


@check("Resources have versions and a latest: the ones added or updated last")
async def versions(store: LightningStore) -> None:
    expect(await store.get_latest_resources(), None, "the latest of none")
    first = await store.add_resources({"prompt": "hi"}, resources_id="a")
    other = await store.add_resources({"prompt": "ho"})
    expect(await store.get_latest_resources(), other, "the latest after two were added")
    updated = await store.update_resources("a", {"prompt": "hello"})
    expect((first.version, updated.version), (1, 2), "the versions")
    expect(updated.resources, {"prompt": "hello"}, "the updated resources")
    expect(updated.create_time, first.create_time, "create_time, which an update leaves")
    expect_that(updated.update_time >= other.update_time, "update_time", expected="a later one", seen=updated)
    expect(await store.get_latest_resources(), updated, "the latest after an update")
    expect(await store.get_resources_by_id("a"), updated, "the resources by id")
    expect(await store.get_resources_by_id(other.resources_id), other, "the others by id")


@check("Adding or updating with the same contents again makes no version")
async def repeated_contents(store: LightningStore) -> None:
    first = await store.add_resources({"prompt": "hi"}, resources_id="a")
    expect(await store.add_resources({"prompt": "hi"}, resources_id="a"), first, "the second answer")
    updated = await store.update_resources("a", {"prompt": "ho"})
    expect(await store.update_resources("a", {"prompt": "ho"}), updated, "the second update's answer")
    with refused(InvalidValue, "resources_id 'a'", "update_resources"):
        await store.add_resources({"prompt": "other"}, resources_id="a")


@check("Updating resources that are new adds them under that id, as their first version")
async def updated_first(store: LightningStore) -> None:
    first = await store.update_resources("default", {"prompt": "hi"})
    expect((first.resources_id, first.version), ("default", 1), "the first")
    expect(first.resources, {"prompt": "hi"}, "its contents")
    expect((await store.enqueue_rollout("x")).resources_id, "default", "the resources of a new rollout")
    expect((await store.update_resources("default", {"prompt": "ho"})).version, 2, "the next version")
    expect([one.version for one in await store.query_resources()], [2], "all resources")


@check("Prompt templates and LLMs are read as what was added, and are plain JSON all the same")
async def resource_kinds(store: LightningStore) -> None:
    prompt = PromptTemplate(template="Answer {q}!", engine="f-string")
    llm = LLM(endpoint="http://localhost:8000/v1", model="m", sampling_parameters={"temperature": 0.5})
    plain = {"resource_type": "llm", "colour": "red"}
    added = await store.add_resources({"prompt": prompt, "llm": llm, "own": plain, "n": 1}, resources_id="a")
    found = [
        await store.get_resources_by_id("a"),
        await store.get_latest_resources(),
        *await store.query_resources(),
        await store.update_resources("a", added.resources),
    ]
    for update in [added, *(present(one, "the resources") for one in found)]:
        read = update.resources
        expect([type(each) for each in read.values()], [PromptTemplate, LLM, LLM, int], "types of resources")
        expect(read["prompt"].format(q="me"), "Answer me!", "the prompt, filled in")
        expect((read["llm"].get_base_url(), read["llm"].model), ("http://localhost:8000/v1", "m"), "the LLM")
        expect(read["llm"].sampling_parameters, {"temperature": 0.5}, "its sampling parameters")
        expect(read["own"], plain, "an object with fields of its own")
        expect(update.version, 1, "the version")


@check("Unknown resources are None when read, and what is no JSON is refused")
async def unknown_resources(store: LightningStore) -> None:
    expect(await store.get_resources_by_id("nobody"), None, "unknown resources")
    expect(await store.query_resources(resources_id="nobody"), [], "unknown resources, queried")
    with refused(InvalidValue, "resources", "object"):
        await store.add_resources({"x": object()})


RESOURCES = (versions, repeated_contents, updated_first, resource_kinds, unknown_resources)

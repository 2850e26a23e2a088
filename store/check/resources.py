"""Resources and their versions."""

from raybolt.store.base import LightningStore
from raybolt.store.check.rules import check, expect, expect_that, refused
from raybolt.store.errors import InvalidValue, UnknownResources


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


@check("Unknown resources raise UnknownResources when updated, and are None when read")
async def unknown_resources(store: LightningStore) -> None:
    with refused(UnknownResources, "'nobody'"):
        await store.update_resources("nobody", {})
    expect(await store.get_resources_by_id("nobody"), None, "unknown resources")
    with refused(InvalidValue, "resources", "object"):
        await store.add_resources({"x": object()})


RESOURCES = (versions, repeated_contents, unknown_resources)

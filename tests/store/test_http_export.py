"""What a served folder keeps, fetched as Parquet."""

import asyncio
import io
import threading
import urllib.request
from pathlib import Path
from zipfile import ZipFile

import pytest
from store_samples import fill_group

from raybolt.store import HttpStore, InvalidValue, LocalStore, StoreError, serve
from raybolt.store.parquet import FILES, import_parquet


async def test_an_export_of_a_server_is_a_store_as_it_was(tmp_path: Path) -> None:
    async with LocalStore(tmp_path / "one") as served:
        await fill_group(served, "g", num_rollouts=3, num_spans=2)
        told: list[int] = []
        with serve(served, port=0) as server:
            async with HttpStore(server.url) as store:
                counts = await asyncio.to_thread(store.export_parquet, tmp_path / "out", on_bytes=told.append)
        assert counts == {
            "rollouts": 3, "attempts": 3, "groups": 1, "resources": 0, "changes": 23, "spans": 6,
        }  # fmt: skip
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
        assert told == sorted(told)
        assert told[-1] > 1000
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "out"]
        import_parquet(tmp_path / "out", tmp_path / "copy")
        async with LocalStore(tmp_path / "copy") as copy:
            assert await copy.query_groups() == await served.query_groups()
            assert await copy.get_changes() == await served.get_changes()


async def test_curl_gets_a_zip_with_the_token(tmp_path: Path) -> None:
    async with LocalStore(tmp_path) as served:
        await fill_group(served, "g", num_rollouts=1)
        with serve(served, port=0, tokens=["t"]) as server:
            request = urllib.request.Request(f"{server.url}/v1/export", headers={"Authorization": "Bearer t"})
            with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
                assert answer.headers["Content-Type"] == "application/zip"
                assert answer.headers["Content-Disposition"] == 'attachment; filename="store.zip"'
                content = answer.read()
            async with HttpStore(server.url, token="wrong") as store:
                with pytest.raises(InvalidValue, match=r"token is missing or wrong; give it by --token"):
                    await asyncio.to_thread(store.export_parquet, tmp_path / "out")
    with ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(FILES)


async def test_what_cannot_be_exported_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async with LocalStore() as memory:
        with serve(memory, port=0) as server:
            async with HttpStore(server.url) as store:
                with pytest.raises(InvalidValue, match="in memory only; one that a folder keeps"):
                    await asyncio.to_thread(store.export_parquet, tmp_path / "out")
    async with LocalStore(tmp_path / "one") as gone:
        gone.folder = tmp_path / "elsewhere"
        with serve(gone, port=0) as server:
            async with HttpStore(server.url) as store:
                with pytest.raises(StoreError, match="there is no store at"):
                    await asyncio.to_thread(store.export_parquet, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    async with HttpStore("http://127.0.0.1:1") as store:
        with pytest.raises(InvalidValue, match="full is not empty; give a new folder"):
            await asyncio.to_thread(store.export_parquet, tmp_path / "full")
    async with HttpStore("http://127.0.0.1:1") as store:
        with pytest.raises(StoreError, match="ended after 0 bytes"):
            await asyncio.to_thread(store.export_parquet, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "one"]


async def test_an_export_that_breaks_off_is_no_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_a_little(folder: Path, sink: io.BufferedWriter) -> None:
        sink.write(bytes(10**6))
        sink.flush()
        raise StoreError("the disk is gone")

    monkeypatch.setattr("raybolt.store.parquet.export_zip", write_a_little)
    async with LocalStore(tmp_path / "one") as served:
        with serve(served, port=0) as server:
            async with HttpStore(server.url) as store:
                with pytest.raises(StoreError, match=r"/v1/export ended after \d+ bytes"):
                    await asyncio.to_thread(store.export_parquet, tmp_path / "out")
                assert (await store.statistics())["spans"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


async def test_a_client_that_goes_away_ends_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def write_for_ever(folder: Path, sink: io.BufferedWriter) -> None:
        try:
            while True:
                sink.write(bytes(10**6))
        finally:
            ended.set()

    monkeypatch.setattr("raybolt.store.parquet.export_zip", write_for_ever)
    async with LocalStore(tmp_path / "one") as served:
        with serve(served, port=0) as server:
            answer = await asyncio.to_thread(urllib.request.urlopen, f"{server.url}/v1/export")
            assert len(await asyncio.to_thread(answer.read, 1000)) == 1000
            answer.close()
            assert await asyncio.to_thread(ended.wait, 60)

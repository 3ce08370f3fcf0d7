import asyncio
import errno
import io
import json
import os
import stat
import time
from pathlib import Path

import pytest

from provisioning.cli.run import Failure
from provisioning.cli.transfer import Lines
from provisioning.core.importing import LONGEST_LINE
from provisioning.store.database import Database
from tests.conftest import Spawn, service_environment
from tests.devices import DEVICE, GROUP, PRODUCT
from tests.provisioning.cli.conftest import Command

server = pytest.mark.server


def written(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return str(path)


def fleet(count: int, prefix: str = "d") -> list[dict[str, object]]:
    return [
        {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": f"{prefix}{n}"} for n in range(count)
    ]


# --- lines ---


def test_lines_are_cut_when_they_are_too_long_and_the_next_ones_are_whole() -> None:
    file = io.BytesIO(b"a\r\n" + b"x" * 1_000 + b"\n\nb\n" + b"y" * 11 + b"\nc")
    lines = Lines(file, 10, "f")
    assert [line if len(line) <= 10 else len(line) for line in lines] == [b"a", 12, b"", b"b", 11, b"c"]
    assert lines.read == 3 + 1_001 + 1 + 2 + 12 + 1


def test_a_line_without_end_is_no_burden() -> None:
    class Endless(io.RawIOBase):
        left = 200

        def readable(self) -> bool:
            return True

        def readline(self, size: int | None = -1, /) -> bytes:
            self.left -= 1
            assert size is not None
            assert 0 < size <= LONGEST_LINE + 2
            return b"z" * size if self.left > 0 else b""

    (only,) = list(Lines(Endless(), LONGEST_LINE, "f"))  # type: ignore[arg-type]
    assert len(only) == LONGEST_LINE + 2


def test_a_file_that_ends_in_an_error_is_named() -> None:
    class Failing(io.RawIOBase):
        def readline(self, _size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(Failure, match=r"^cannot read /a/file to its end: Input/output error$"):
        list(Lines(Failing(), LONGEST_LINE, "/a/file"))  # type: ignore[arg-type]


# --- import ---


@server
async def test_import_and_repeat(command: Command, tmp_path: Path) -> None:
    file = written(tmp_path / "f", PRODUCT, GROUP, DEVICE)
    first = (await command("import", file, "--json")).rows
    assert first[:3] == [
        {"line": 1, "type": "product", "name": "pk1", "outcome": "created"},
        {"line": 2, "type": "group", "name": "g1", "outcome": "created"},
        {"line": 3, "type": "device", "name": "pk1/dk1", "outcome": "created"},
    ]
    assert first[3]["summary"] | {"seconds": 0} == {
        "created": 3, "updated": 0, "unchanged": 0, "failed": 0, "dry_run": False, "seconds": 0,
    }  # fmt: skip
    assert (await command("import", file)).out == "0 created, 0 updated, 3 unchanged, 0 failed\n"
    changed = written(tmp_path / "f", PRODUCT, DEVICE | {"deviceName": "New"})
    assert (await command("import", changed)).out == "0 created, 1 updated, 1 unchanged, 0 failed\n"


@server
async def test_good_rows_are_in_whatever_the_others_are(command: Command, tmp_path: Path) -> None:
    rows = [
        PRODUCT, "not json", DEVICE | {"deviceKey": "a/b"}, DEVICE, "", DEVICE | {"productKey": "nope"}, [1],
        DEVICE | {"deviceKey": "dk2"}, '{"type":"device","protocol":"x"}', '"' + "x" * LONGEST_LINE + '"',
    ]  # fmt: skip
    done = await command("import", written(tmp_path / "f", *rows), "--json", code=1)
    assert [(row["line"], row["outcome"], row.get("error")) for row in done.rows[:-1]] == [
        (1, "created", None),
        (2, "failed", "the line is not JSON"),
        (3, "failed", "deviceKey must be 1 to 64 of A-Z a-z 0-9 _ . -"),
        (4, "created", None),
        (6, "failed", "there is no product nope"),
        (7, "failed", "the line is not a JSON object"),
        (8, "created", None),
        (9, "failed", "protocol must be one of enos, tencent, ioto, ublox"),
        (10, "failed", f"the line is longer than {LONGEST_LINE} bytes"),
    ]
    assert [row["key"] for row in (await command("device", "list", "--json")).rows] == ["dk1", "dk2"]
    plain = (await command("import", str(tmp_path / "f"), code=1)).out.splitlines()
    assert plain[0] == "line 2: failed: the line is not JSON"
    assert plain[-1] == "0 created, 0 updated, 3 unchanged, 6 failed"
    assert len(plain) == 7
    verbose = (await command("import", str(tmp_path / "f"), "--verbose", code=1)).out.splitlines()
    assert "line 4: unchanged device pk1/dk1" in verbose


@server
async def test_standard_input_whatever_its_bytes_are(command: Command) -> None:
    lines = b"\xef\xbb\xbf" + json.dumps(PRODUCT).encode() + b"\r\n\xff\xfe\n" + json.dumps(DEVICE).encode()
    done = await command("import", "-", stdin=lines, code=1)
    assert done.out == "line 2: failed: the line is not UTF-8\n2 created, 0 updated, 0 unchanged, 1 failed\n"


@server
async def test_a_dry_run_tells_and_changes_nothing(command: Command, tmp_path: Path) -> None:
    clash = DEVICE | {"deviceKey": "dk2", "groupId": "g1", "deviceSn": "SN1"}
    rows = [PRODUCT, GROUP, DEVICE | {"groupId": "g1", "deviceSn": "SN1"}, clash, DEVICE | {"deviceKey": "dk3"}]
    done = await command("import", written(tmp_path / "f", *rows), "--dry-run", "--json", code=1)
    assert [row["outcome"] for row in done.rows[:-1]] == ["created", "created", "created", "failed", "created"]
    assert done.rows[-1]["summary"]["dry_run"] is True
    assert (await command("product", "list")).out == ""


@server
async def test_a_secret_is_in_no_result(command: Command, tmp_path: Path) -> None:
    rows = [
        PRODUCT | {"productSecret": "hush-hush"},
        GROUP | {"password": "hush-hush"},
        DEVICE | {"deviceSecret": "hush hush"},
    ]
    for args in ([], ["--json"], ["--verbose"]):
        done = await command("import", written(tmp_path / "f", *rows), *args, code=1)
        assert "hush" not in done.out + done.err


@server
@pytest.mark.parametrize("name", ["/nowhere/file", "/"])
async def test_a_file_that_cannot_be_read(command: Command, name: str) -> None:
    refused = await command("import", name, code=1)
    assert refused.err.startswith(f"gatehouse: cannot read {name}: ")


@server
async def test_two_importers_at_once_bring_about_one_fleet(
    spawn: Spawn, command: Command, database_url: str, tmp_path: Path
) -> None:
    """The same devices in opposite order: they clash, or wait for each other crosswise, and both come through."""
    await command("import", written(tmp_path / "p", PRODUCT))
    forth = written(tmp_path / "forth", *fleet(3_000))
    back = written(tmp_path / "back", *reversed(fleet(3_000)))
    environment = service_environment(database_url)
    both = [await spawn("import", "--json", file, **environment) for file in (forth, back)]
    assert await asyncio.gather(*(process.wait() for process in both)) == [0, 0], [p.errors for p in both]
    summaries = [json.loads(process.lines[-1])["summary"] for process in both]
    assert sum(summary["created"] for summary in summaries) == 3_000
    assert (await command("product", "list", "--json")).row["devices"] == 3_000


@server
async def test_twenty_thousand_rows_are_a_matter_of_seconds(command: Command, tmp_path: Path) -> None:
    file = written(tmp_path / "f", PRODUCT, *fleet(20_000))
    started = time.monotonic()
    assert (await command("import", file)).out == "20001 created, 0 updated, 0 unchanged, 0 failed\n"
    assert time.monotonic() - started < 12, "100,000 devices would take more than a minute"


# --- export ---


@server
async def test_an_export_imported_elsewhere_gives_the_same_export(command: Command, tmp_path: Path) -> None:
    rows = [
        PRODUCT | {"name": "Pümp \u2028 \x1b[31m", "autoCreate": True}, GROUP | {"signFreshness": 0, "name": "Linie"},
        PRODUCT | {"productKey": "pk2"}, GROUP | {"groupId": "g 2", "productKey": None, "autoRegister": False}, DEVICE,
        DEVICE | {"deviceKey": "dk2", "groupId": "g1", "deviceSn": "SN2", "disabled": True, "assetId": "A1"},
        DEVICE | {"deviceKey": "dk3", "groupId": "g1", "deviceSn": "SN3", "timezone": "Europe/Berlin"},
        {"type": "device", "protocol": "enos", "groupId": "g 2", "deviceSn": "SN1", "deviceName": "Waiting"},
    ]  # fmt: skip
    await command("import", written(tmp_path / "f", *rows))
    await command("device", "reset", "pk1", "dk3")  # its key stays reserved; it has no secret
    first, second = tmp_path / "first", tmp_path / "second"
    assert (await command("export", str(first))).err == f"8 rows in {first}, with all secrets\n"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    for product in ("pk1", "pk2"):
        await command("product", "delete", product, "--cascade")
    await command("group", "delete", "g 2", "--cascade")
    assert (await command("export", "-")).out == ""
    await command("import", str(first))
    await command("export", str(second))
    assert second.read_text("utf-8") == first.read_text("utf-8")
    assert (await command("export", "-")).out == first.read_text("utf-8")
    assert len(first.read_text("utf-8").splitlines()) == 8
    assert (await command("device", "list", "--json", "--state", "registered")).rows[0]["serial"] in {"SN1", "SN3"}


@server
async def test_an_export_of_several_pages(command: Command, tmp_path: Path) -> None:
    products = [PRODUCT | {"productKey": f"p{n:04}"} for n in range(1_001)]
    await command("import", written(tmp_path / "f", *products, PRODUCT, *fleet(2_500)))
    lines = (await command("export", "-")).out.splitlines()
    assert len(lines) == len(set(lines)) == 1_001 + 1 + 2_500


@server
async def test_a_failed_export_leaves_the_old_file(command: Command, database: Database, tmp_path: Path) -> None:
    await command("import", "-", stdin="\n".join(map(json.dumps, (PRODUCT, *fleet(1_500)))).encode())
    async with database.begin() as tx:
        await tx.db.execute("UPDATE device SET secret = secret || '\\x00' WHERE key = 'd1499'")
    folder = tmp_path / "exports"
    folder.mkdir()
    target = folder / "fleet"
    target.write_text("old")
    refused = await command("export", str(target), code=1)
    assert refused.err == "gatehouse: the sealed secret of device|enos|pk1|d1499 is damaged or belongs to another row\n"
    assert target.read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["fleet"]


@server
async def test_an_export_of_one_protocol(command: Command) -> None:
    await command("product", "create", "pk1")
    assert (await command("export", "-", "--protocol", "enos")).out == (await command("export", "-")).out
    refused = await command("export", "-", "--protocol", "nope", code=1)
    assert refused.err == "gatehouse: there is no protocol nope; there is enos, tencent, ioto, ublox\n"


@server
async def test_an_export_to_where_one_cannot_write(command: Command, tmp_path: Path) -> None:
    assert (await command("export", str(tmp_path), code=1)).err.startswith(f"gatehouse: cannot write {tmp_path}: ")
    refused = await command("export", "/nowhere/file", code=1)
    assert refused.err == "gatehouse: cannot write /nowhere/file: No such file or directory\n"


@server
async def test_a_device_file_is_written_as_it_is(command: Command) -> None:
    await command("export", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116 - no disk is asked

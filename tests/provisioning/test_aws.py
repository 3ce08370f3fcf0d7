import asyncio
from typing import Any

import pytest

from provisioning import sections, settings
from provisioning.aws import LONGEST_ERROR, Aws, AwsError
from tests.aws import Account

pytestmark = pytest.mark.server


async def test_a_client_is_made_once(aws: Account) -> None:
    async with Aws(sections.Aws.model_validate(aws.settings)) as opened:
        first, second = await asyncio.gather(opened.client("s3"), opened.client("s3"))
        assert first is second
        assert (await first.list_buckets())["Buckets"] == []


async def test_what_aws_says_is_told_in_one_line(aws: Account) -> None:
    async with Aws(sections.Aws.model_validate(aws.settings)) as opened:
        s3 = await opened.client("s3")
        with pytest.raises(AwsError, match=r"^S3 refuses: NoSuchBucket: [^\n]+$") as caught:
            async with opened.errors("s3"):
                await s3.list_objects_v2(Bucket="nowhere")
        assert caught.value.code == "NoSuchBucket"


async def test_without_keys_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    async with Aws(sections.Aws(endpoint="http://127.0.0.1:9")) as opened:
        sts = await opened.client("sts")
        with pytest.raises(AwsError, match=r"^STS cannot be used: Unable to locate credentials") as caught:
            async with opened.errors("sts"):
                await sts.get_caller_identity()
    assert caught.value.code == ""


async def test_nothing_lasts_longer_than_the_timeout() -> None:
    async with Aws(sections.Aws(timeout=0.05)) as opened:
        with pytest.raises(AwsError, match=r"^STS does not answer within 0\.05 s$"):
            async with opened.errors("sts"):
                await asyncio.Event().wait()


def test_long_words_are_cut() -> None:
    assert str(AwsError("a\n b\tc" + "x" * 1_000)).startswith("a b c")
    assert len(str(AwsError("x" * 1_000))) == LONGEST_ERROR


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"access_key_id": "a"}, "access_key_id and secret_access_key belong together"),
        ({"region": "eu west"}, "match pattern"),
        ({"endpoint": "nowhere"}, "must be scheme://host"),
        ({"timeout": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(settings.SettingsError, match=words):
        settings.load(aws=section)


def test_secrets_may_come_from_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("hidden\n")
    monkeypatch.setenv("GATEHOUSE_AWS__ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("GATEHOUSE_AWS__SECRET_ACCESS_KEY_FILE", str(tmp_path / "key"))
    found = settings.load()
    assert found.aws.secret_access_key is not None
    assert found.aws.secret_access_key.get_secret_value() == "hidden"
    assert "hidden" not in repr(found)

"""Clients of Amazon Web Services, or of what speaks its API: made when they are first needed, closed with the block.

    async with Aws(settings.aws) as aws:
        s3 = await aws.client("s3")

Without keys in the settings, aiobotocore looks where the AWS SDKs look: environment, ~/.aws, role of the machine.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any, Final, Self

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError

from provisioning import sections

CONNECTIONS: Final = 50
TRIES: Final = 2
LONGEST_ERROR: Final = 300


@cache
def _session() -> AioSession:
    """Descriptions of services are read once in a process: they have megabytes."""
    return get_session()


class AwsError(Exception):
    """AWS cannot be reached or says no; the text is one line for people."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(" ".join(text.split())[:LONGEST_ERROR])
        self.code = code
        """What AWS calls the error: `AccessDenied`, `404`; empty: it was not reached."""


class Aws:
    def __init__(self, stated: sections.Aws) -> None:
        self.region = stated.region
        self.timeout = stated.timeout
        self._stated = stated
        self._clients: dict[str, Any] = {}
        self._making = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._clients.clear()
        await self._stack.aclose()

    async def client(self, service: str) -> Any:
        """The client of a service (`s3`, `sts`); making the first one takes some tenths of a second.

        Raises:
            AwsError: the settings or the environment do not make one.
        """
        async with self._making:
            if service not in self._clients:
                async with self.errors(service):
                    self._clients[service] = await self._stack.enter_async_context(self._make(service))
            return self._clients[service]

    def _make(self, service: str) -> Any:
        secret = self._stated.secret_access_key
        # Each try has its share: the whole must end before whoever waits for us gives up.
        share = self.timeout / TRIES
        return _session().create_client(
            service, region_name=self._stated.region, endpoint_url=self._stated.endpoint,
            aws_access_key_id=self._stated.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            config=AioConfig(
                connect_timeout=share, read_timeout=share, max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": TRIES},
                s3={"addressing_style": "path"} if self._stated.endpoint else None,
            ),
        )  # fmt: skip

    @asynccontextmanager
    async def errors(self, service: str, *, deadline: bool = True) -> AsyncIterator[None]:
        """Around requests: what goes wrong is an AwsError, and none lasts longer than the timeout of the settings.

        `deadline` False: the requests' own timeouts bound them.
        """
        name = service.upper()
        try:
            async with asyncio.timeout(self.timeout if deadline else None):
                yield
        except ClientError as error:
            told = error.response.get("Error", {})
            code = str(told.get("Code", ""))
            raise AwsError(f"{name} refuses: {code}: {told.get('Message', '')}", code) from error
        except TimeoutError as error:
            raise AwsError(f"{name} does not answer within {self.timeout:g} s") from error
        except (BotoCoreError, aiohttp.ClientError, OSError) as error:
            raise AwsError(f"{name} cannot be used: {error}") from error

"""A stand-in for AWS, by moto's server in a process of its own, that judges requests as AWS does.

moto checks signatures and the policies of users and roles once `enforce` has been called; it keeps the policy that a
session was cut down to by AssumeRole, and does not look at it. The program below does, with moto's own evaluation.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import boto3
from botocore.config import Config

PROGRAM: Final = """
import sys
from moto.iam import access_control
from moto.server import ThreadedMotoServer
from moto.sts.models import sts_backends

permitted = access_control.IAMRequestBase.check_action_permitted

def check(request, resource):
    permitted(request, resource)
    key = getattr(request._access_key, "_access_key_id", "")
    for backend in sts_backends[request.account_id].values():
        for role in backend.assumed_roles:
            if role.access_key_id == key and role.policy:
                policy = access_control.IAMPolicy(role.policy)
                found = policy.is_action_permitted(request._action, resource)
                if found is not access_control.PermissionResult.PERMITTED:
                    request._raise_access_denied()

access_control.IAMRequestBase.check_action_permitted = check
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
ROOT: Final = ("testing", "testing")
"""Keys of nobody in particular: good as long as nothing is enforced."""
REGION: Final = "eu-west-1"
ACCOUNT: Final = "123456789012"
TRUST: Final = json.dumps({
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
})  # fmt: skip


def allow(action: str | list[str], resource: str) -> str:
    """A policy."""
    return json.dumps({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}],
    })  # fmt: skip


@dataclass(slots=True)
class Account:
    """The account of a test, empty at its beginning. Its methods that talk block: call them by `asyncio.to_thread`."""

    url: str
    session: boto3.Session = field(default_factory=boto3.Session)

    def client(self, service: str, key_id: str = ROOT[0], secret: str = ROOT[1], token: str | None = None) -> Any:
        return self.session.client(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id=key_id,
            aws_secret_access_key=secret, aws_session_token=token,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )  # fmt: skip

    @property
    def settings(self) -> dict[str, str]:
        """The section [aws] for this account."""
        return {
            "endpoint": self.url, "region": REGION, "access_key_id": ROOT[0], "secret_access_key": ROOT[1],
        }  # fmt: skip

    def make_bucket(self, name: str) -> None:
        self.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def make_role(self, name: str, policy: str) -> None:
        iam = self.client("iam")
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
        iam.put_role_policy(RoleName=name, PolicyName="may", PolicyDocument=policy)

    def make_user(self, name: str, policy: str) -> tuple[str, str]:
        """Returns the keys of a new user."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=policy)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    async def enforce(self) -> None:
        """From now on who asks must be somebody, and be allowed to."""
        await self._post("/moto-api/reset-auth", b"0")

    async def reset(self) -> None:
        await self._post("/moto-api/reset-auth", b"inf")
        await self._post("/moto-api/reset", b"")

    async def _post(self, path: str, body: bytes) -> None:
        async with aiohttp.ClientSession() as session, session.post(self.url + path, data=body) as response:
            assert response.status == 200, await response.text()


@asynccontextmanager
async def served() -> AsyncIterator[Account]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 60))
        yield Account(f"http://127.0.0.1:{port}")
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 30)

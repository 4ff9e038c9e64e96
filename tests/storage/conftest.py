"""Stores of every kind, and an S3 server that lives as long as the tests."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from drkit.storage.s3 import S3Storage
from tests.storage.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from drkit.protocols import Storage

KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not a secret"}
BUCKET = "backups"

_prefixes = itertools.count()


class AtomicPuts:
    """Makes moto's conditional puts atomic, as S3's are.

    moto looks whether the name is taken and stores the object in two steps, between
    which another thread's request fits.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] != "PUT":
            return self._application(environ, start_response)
        with self._lock:
            return list(self._application(environ, start_response))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of a moto server with one bucket."""
    application = AtomicPuts(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, application, True, request_handler=MotoRequestHandler
    )
    with serving(server) as url:
        yield url


@pytest.fixture(scope="session")
def s3_admin(s3_endpoint: str) -> Iterator[Any]:
    """A client of the server, not drkit's own."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
    )
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()


@pytest.fixture(scope="session")
def contract_s3(s3_endpoint: str, s3_admin: Any) -> Iterator[S3Storage]:
    storage = S3Storage(
        BUCKET, "contract", endpoint_url=s3_endpoint, region="us-east-1", **KEYS
    )
    yield storage
    storage.close()


@pytest.fixture
def empty_s3(contract_s3: S3Storage, s3_admin: Any) -> Iterator[S3Storage]:
    """One client for many tests, since making one takes a third of a second."""
    yield contract_s3
    pages = s3_admin.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=BUCKET, Prefix="contract/"):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", ())]
        if keys:
            s3_admin.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})


@pytest.fixture
def make_s3(s3_endpoint: str, s3_admin: Any) -> Iterator[Callable[..., S3Storage]]:
    """Open stores on the server, each below a prefix of its own."""
    made: list[S3Storage] = []

    def make(endpoint_url: str = s3_endpoint, **options: Any) -> S3Storage:
        arguments = {
            "bucket": BUCKET,
            "prefix": f"test/{next(_prefixes)}",
            "region": "us-east-1",
            **KEYS,
            **options,
        }
        made.append(S3Storage(endpoint_url=endpoint_url, **arguments))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture(params=["memory", "local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty store of each kind."""
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "local":
        return LocalStorage.create(tmp_path / "repository")
    return request.getfixturevalue("empty_s3")

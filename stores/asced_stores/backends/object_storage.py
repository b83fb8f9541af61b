"""Object storage and memory, both through obstore: conditional puts instead of links."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from asced_stores.backends.backend import GIVEN, OBJECTS, Backend, Parts, Stamp
from asced_stores.backends.opening import BackendEntry
from asced_stores.errors import BackendError, DamagedStoreError, InputError

_MEMORIES: dict[str, Any] = {}
_GUARD = threading.Lock()


def open_object_backend(url: str, storage_options: Mapping[str, Any] | None) -> Backend:
    """Open ``memory://name``, ``s3://bucket/prefix``, or another URL of obstore.

    Credentials come from the environment only (``AWS_ACCESS_KEY_ID``, ``GOOGLE_...``,
    ``AZURE_...``); of
    ``storage_options``, ``endpoint``, ``region``, ``virtual_hosted_style_request`` (S3),
    ``timeout`` and ``retry_timeout`` (seconds), and ``max_retries`` are taken.
    """
    scheme, _, rest = url.partition("://")
    name, _, prefix = rest.strip("/").partition("/")
    if not name:
        raise InputError(f"{url!r} has no name after {scheme}://")
    if scheme == "memory":
        from obstore.store import MemoryStore

        with _GUARD:
            store = _MEMORIES.setdefault(rest.strip("/"), MemoryStore())
        return ObjectBackend(store, url)
    if scheme == GIVEN:
        if name not in OBJECTS:
            raise InputError(
                f"{url!r} stands for a store object of another process: open it with the object, "
                "or with its URL"
            )
        return ObjectBackend(OBJECTS[name], url)
    options = dict(storage_options or {})
    if scheme == "s3":
        backend = ObjectBackend(_s3(name, prefix, options), url)
    else:
        backend = ObjectBackend(_other(url, options), url)
    backend.options = storage_options
    return backend


def _check_options(options: Mapping[str, Any], known: set[str]) -> None:
    known = known | {"timeout", "max_retries", "retry_timeout"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(
            f"storage options {', '.join(unknown)} are not taken: expected some of "
            f"{', '.join(sorted(known))}; credentials come from the environment"
        )


def _client(options: Mapping[str, Any]) -> dict[str, Any]:
    """How requests are sent and tried again."""
    retry: Any = {
        "max_retries": options.get("max_retries", 8),
        "retry_timeout": timedelta(seconds=options.get("retry_timeout", 120)),
    }
    client: Any = {"timeout": timedelta(seconds=options.get("timeout", 60))}
    return {"client_options": client, "retry_config": retry}


def _other(url: str, options: dict[str, Any]) -> Any:
    """Google's and Microsoft's storage, and what else obstore knows by its URL."""
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    _check_options(options, set())
    try:
        return from_url(url, **_client(options))
    except (BaseError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{url!r} cannot be opened: {reason}. Credentials and account come from the environment"
        ) from error


def _s3(bucket: str, prefix: str, options: dict[str, Any]) -> Any:
    from obstore.store import S3Store

    _check_options(options, {"endpoint", "region", "virtual_hosted_style_request"})
    endpoint = (
        options.get("endpoint")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise InputError(
            f"the endpoint is {endpoint!r}: expected a URL that begins with http:// or https://, "
            f"such as http://{endpoint.rpartition('://')[2]}"
        )
    request = _client(options)
    config: dict[str, Any] = {}
    if endpoint:
        config["endpoint"] = endpoint
        request["client_options"]["allow_http"] = endpoint.startswith("http://")
    region = options.get("region") or os.environ.get("AWS_REGION")
    config["region"] = region or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if "virtual_hosted_style_request" in options:
        config["virtual_hosted_style_request"] = options["virtual_hosted_style_request"]
    return S3Store(bucket, prefix=prefix or None, **config, **request)


@contextlib.contextmanager
def _explained(url: str, key: str) -> Iterator[None]:
    """Turn what the client raises after its last attempt into an error of the toolkit."""
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except AlreadyExistsError:
        raise
    except (BaseError, PermissionError) as error:
        reason = str(error).partition("\n")[0].partition("<?xml")[0].rstrip(" :")
        if "list request" in reason and "404 Not Found" in reason:  # an empty bucket answers
            raise InputError(
                f"there is no bucket for {url}: check its name and the endpoint, or make it first"
            ) from error
        raise BackendError(
            f"{key} of {url} could not be reached: {reason}. Check endpoint, bucket and the "
            "credentials in the environment, then try again: what is committed stays"
        ) from error


class ObjectBackend(Backend):
    """An obstore store. Conditional puts make objects, whole and only once."""

    def __init__(self, store: Any, url: str) -> None:
        self._store = store
        self.url = url

    @property
    def position(self) -> tuple[str, ...]:
        """Endpoint, bucket and the parts of the prefix; every memory is alone."""
        scheme, _, rest = self.url.partition("://")
        if scheme in ("memory", GIVEN):
            return scheme, rest.strip("/")
        endpoint = str(self._store.config.get("endpoint", "")).rstrip("/")
        return scheme, endpoint, *(part for part in rest.split("/") if part)

    def read(self, key: str, *, limit: int | None = None) -> bytes:
        """Read a whole object."""
        with _explained(self.url, key):
            answer = self._store.get(key)
            if limit is not None and answer.meta["size"] > limit:
                raise DamagedStoreError(f"{key} in {self.url} is longer than {limit} bytes")
            return bytes(answer.bytes())

    @contextlib.contextmanager
    def reader(self, key: str) -> Iterator[ObjectReader]:
        """Open an object, to fill buffers from it."""
        yield ObjectReader(self._store, key, self.url)

    def size(self, key: str) -> int:
        """Length in bytes."""
        with _explained(self.url, key):
            return int(self._store.head(key)["size"])

    def create(self, key: str, parts: Parts, *, owner: str = "") -> Stamp:
        """Make a new, whole object."""
        from obstore.exceptions import AlreadyExistsError

        token = uuid.uuid4().hex
        data = b"".join(parts)
        try:
            with _explained(self.url, key):
                answer = self._store.put(
                    key, data, mode="create", use_multipart=False, attributes={"writer": token}
                )
        except AlreadyExistsError as error:
            # A put whose answer was lost is tried again, and then finds itself.
            stamp = self.stamp(key)
            if stamp is not None and stamp[1] == token:
                return stamp
            raise FileExistsError(key) from error
        return str(answer["e_tag"]), token

    def stamp(self, key: str) -> tuple[str, str] | None:
        """Entity tag and writer's token; the tag alone is the same for equal bytes."""
        try:
            with _explained(self.url, key):
                answer = self._store.get(key, options={"range": (0, 1)})
        except FileNotFoundError:
            return None
        return str(answer.meta["e_tag"]), str(answer.attributes.get("writer"))

    def make_durable(self, keys: Iterable[str]) -> None:
        """Nothing to wait for: an object that was put is durable."""

    def replace(self, key: str, data: bytes) -> None:
        """Write atomically over what lies there."""
        with _explained(self.url, key):
            self._store.put(key, data, use_multipart=False)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError), _explained(self.url, key):
            self._store.delete(key)

    def names(self, folder: str) -> list[str]:
        """Names directly in a folder."""
        with _explained(self.url, folder):
            found = self._store.list_with_delimiter(folder)["objects"]
        return [str(each["path"]).rpartition("/")[2] for each in found]

    def walk(self) -> Iterator[tuple[str, int]]:
        """Key and size of everything."""
        with _explained(self.url, "the list"):
            pages = list(self._store.list())
        for page in pages:
            for each in page:
                yield str(each["path"]), int(each["size"])

    def zarr_store(self) -> Any:
        """Zarr's own read-only view."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._store, read_only=True)

    def copy_from(self, source: Backend, source_key: str, key: str) -> None:
        """Take over the bytes of another object."""
        if isinstance(source, ObjectBackend) and source._store is self._store:
            if self.exists(key):  # S3 has no conditional copy
                raise FileExistsError(key)
            with _explained(self.url, key):
                self._store.copy(source_key, key)
            return
        self.create(key, [source.read(source_key)], owner="copy")


class ObjectReader:
    """An object of a store; a request costs more than the bytes do."""

    group = 256 << 20

    def __init__(self, store: Any, key: str, url: str) -> None:
        self._store = store
        self._key = key
        self._url = url

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Nothing: the requests themselves go out together."""

    def read_into(self, requests: Sequence[tuple[int, Sequence[Any]]]) -> None:
        """Fill buffers; see `asced_stores.backends.backend.Reader`."""
        with _explained(self._url, self._key):
            self._read_into(requests)

    def _read_into(self, requests: Sequence[tuple[int, Sequence[Any]]]) -> None:
        starts, lengths, targets = [], [], []
        for offset, buffers in requests:
            length = sum(memoryview(buffer).nbytes for buffer in buffers)
            if offset < 0:
                options = {"range": {"suffix": -offset}}
                tail = memoryview(self._store.get(self._key, options=options).bytes())
                _fill(buffers, tail[:length], length, self._key)
            elif length:
                starts.append(offset)
                lengths.append(length)
                targets.append(buffers)
        if not starts:
            return
        try:
            answers = self._store.get_ranges(self._key, starts=starts, lengths=lengths)
        except FileNotFoundError:
            raise
        except Exception as error:
            size = int(self._store.head(self._key)["size"])
            if size < max(map(sum, zip(starts, lengths, strict=True))):
                raise EOFError(self._key) from error
            raise
        for answer, length, buffers in zip(answers, lengths, targets, strict=True):
            _fill(buffers, memoryview(answer).cast("B"), length, self._key)


def _fill(buffers: Sequence[Any], data: memoryview, length: int, key: str) -> None:
    if data.nbytes != length:
        raise EOFError(key)
    at = 0
    for buffer in buffers:
        target = memoryview(buffer).cast("B")
        target[:] = data[at : at + target.nbytes]
        at += target.nbytes


def _open(url: str, *, fsync: bool, storage_options: Mapping[str, Any] | None = None) -> Backend:
    return open_object_backend(url, storage_options)


SCHEMES = ("memory", GIVEN, "s3", "gs", "az", "azure", "abfs", "abfss")
BACKEND = BackendEntry(SCHEMES, _open)

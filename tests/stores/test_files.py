"""Files are checked before the work, and written whole or not at all."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from asced_stores.backends.opening import check_store_out
from asced_stores.errors import InputError, StoreExistsError
from asced_stores.files import check_out, whole, write_json
from asced_stores.testing import synthetic_store


def test_missing_folders_are_made_when_the_file_is_written_and_not_before(tmp_path: Path) -> None:
    target = check_out(tmp_path / "new" / "folder" / "t.json", suffixes=(".json",))
    assert not list(tmp_path.iterdir())
    write_json(target, {"a": 1})
    assert target.read_text() == '{\n "a": 1\n}\n'
    assert [path.name for path in target.parent.iterdir()] == ["t.json"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("s3://bucket/t.json", {}, "is remote"),
        ("memory://t.json", {}, "is remote"),
        ("t.csv", {"suffixes": (".json",)}, r"ends in \.json"),
        ("there.json", {}, "overwrite=True"),
        ("folder.json", {"overwrite": True}, "is a folder"),
        ("there.json", {"overwrite": True, "folder": True}, "is a file"),
        ("there.json/t.json", {}, "expected a folder"),
        ("/proc/nowhere/t.json", {}, "cannot be written to"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, options: dict[str, object], said: str, tmp_path: Path, monkeypatch: object
) -> None:
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "folder.json").mkdir()
    path = name if "://" in name else tmp_path / name  # an absolute name stays itself
    with pytest.raises(InputError, match=said):
        check_out(path, **options)  # type: ignore[arg-type]
    assert (tmp_path / "there.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["photo.jpg"], "has no labels.json"),
        (["data/1.png"], "has no labels.json"),
        (["labels.json", "data/1.png", "notes/todo.txt"], "holds notes/todo.txt"),
        (["labels.json", "data/1.jpg"], "holds data/1.jpg"),
        (["labels.json", "data/1.png", "data/2.png"], None),
        ([], None),
    ],
)
def test_a_folder_is_replaced_by_its_own_kind_alone(
    files: list[str], said: str | None, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for name in files:
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text("there")
    own = ("labels.json", "data/*.png")
    with (
        nullcontext() if said is None else pytest.raises(InputError, match=f"out {said}; expected")
    ):
        check_out(target, overwrite=True, folder=True, own=own)


def test_nothing_is_written_over_or_into_a_store_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = synthetic_store(tmp_path / "runs.zarr", runs=4, batch_size=4)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"runs\.zarr is a store of runs"):
        check_out(store.path, suffixes=(".zarr",), overwrite=True, folder=True)
    with pytest.raises(InputError, match="lies in a store of runs"):
        check_out(tmp_path / "runs.zarr" / "zarr.json", overwrite=True)
    with pytest.raises(InputError, match="lies in a store of runs"):
        check_store_out(tmp_path / "runs.zarr" / "more.zarr")
    check_store_out(store.path, overwrite=True)
    monkeypatch.chdir(store.path)
    with pytest.raises(InputError, match="lies in a store of runs"):
        check_out("phases.json")
    assert sorted(tmp_path.rglob("*")) == before


def test_where_a_path_leads_is_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what stands in it before `..` nor the name of a link."""
    store = Path(synthetic_store(tmp_path / "runs.zarr", runs=4, batch_size=4).path)
    monkeypatch.chdir(tmp_path)
    check_out("runs.zarr/../out.json")
    check_store_out("runs.zarr/../more.zarr")
    (tmp_path / "linked").symlink_to(store / "commits")
    (tmp_path / "file.json").symlink_to(store / "zarr.json")
    inside = (store / "commits" / "0.json").read_bytes()
    for path in ("linked/0.json", "linked/../out.json"):
        with pytest.raises(InputError, match=r"lies in a store of runs.* outside runs\.zarr"):
            check_out(path, overwrite=True)
    for path in ("linked", "linked/more.zarr", "runs.zarr/../linked/more.zarr"):
        with pytest.raises(InputError, match="lies in a store of runs"):
            check_store_out(path, overwrite=True)
    target = check_out("file.json", overwrite=True)
    write_json(target, {"a": 1}, overwrite=True)  # in the place of the link
    assert not (tmp_path / "file.json").is_symlink()
    assert (store / "commits" / "0.json").read_bytes() == inside
    monkeypatch.chdir(store)
    check_out("../out.json")
    check_store_out("../more.zarr")
    with pytest.raises(InputError, match="lies in a store of runs"):
        check_out("../runs.zarr/out.json")


@pytest.mark.parametrize("folder", [False, True])
def test_an_error_leaves_the_old_one_and_nothing_else(folder: bool, tmp_path: Path) -> None:
    target = tmp_path / "result.zarr"

    def write(text: str) -> None:
        with whole(target, overwrite=True) as part:
            if folder:
                part.mkdir()
            (part / "file" if folder else part).write_text(text)
            if text == "broken":
                raise KeyboardInterrupt

    def found() -> str:
        return (target / "file" if folder else target).read_text()

    write("old")
    with pytest.raises(KeyboardInterrupt):
        write("broken")
    assert found() == "old"
    write("new")
    assert found() == "new"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(InputError, match="exists"), whole(target):
        pass


def test_a_store_is_checked_before_the_work(tmp_path: Path) -> None:
    check_store_out(tmp_path / "new" / "runs.zarr")
    assert not list(tmp_path.iterdir())
    synthetic_store(tmp_path / "runs.zarr", runs=4, batch_size=4, steps=3, shape=(1, 4, 4))
    with pytest.raises(StoreExistsError, match="overwrite=True"):
        check_store_out(tmp_path / "runs.zarr")
    check_store_out(tmp_path / "runs.zarr", overwrite=True)
    check_store_out(tmp_path / "runs.zarr", resume=True)
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "runs.zarr"):
        with pytest.raises(InputError, match="file"):
            check_store_out(path)
    with pytest.raises(InputError, match="cannot be written to"):
        check_store_out("/proc/nowhere/runs.zarr")

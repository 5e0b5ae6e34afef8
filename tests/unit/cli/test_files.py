"""What of the disk goes into an import."""

import os
from pathlib import Path

import pytest

from paperlog.failures import WRONG_USAGE, Failure
from paperlog.local_files import select
from paperlog.uploading import Uploaded, default_key


def _make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_a_folder_gives_its_files_by_their_places_in_it(tmp_path: Path):
    library = tmp_path / "My library"
    _make(library, "b.rdf", "files/12/a.pdf", "files/3/ü.pdf")
    selection = select([library])
    assert [each.name for each in selection.files] == ["b.rdf", "files/12/a.pdf", "files/3/ü.pdf"]
    assert selection.project == "My library"


def test_a_file_is_named_by_its_own_name_and_its_project_by_its_stem(tmp_path: Path):
    _make(tmp_path, "books.rdf")
    selection = select([tmp_path / "books.rdf"])
    assert ([each.name for each in selection.files], selection.project) == (["books.rdf"], "books")


def test_several_paths_are_named_from_the_folder_that_holds_them(tmp_path: Path):
    _make(tmp_path, "one/x.pdf", "two/x.pdf")
    selection = select([tmp_path / "one", tmp_path / "two" / "x.pdf"])
    assert [each.name for each in selection.files] == ["one/x.pdf", "two/x.pdf"]


def test_one_file_named_twice_is_one_file(tmp_path: Path):
    _make(tmp_path, "one/x.pdf")
    assert len(select([tmp_path / "one", tmp_path / "one" / "x.pdf"]).files) == 1


def test_links_are_not_followed_and_hidden_files_not_taken_and_both_are_said(tmp_path: Path):
    library = tmp_path / "library"
    _make(library, "a.pdf", ".DS_Store", ".git/config")
    _make(tmp_path, "secret.pdf", "elsewhere/b.pdf")
    (library / "link.pdf").symlink_to(tmp_path / "secret.pdf")
    (library / "folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(library / "pipe.pdf")
    selection = select([library])
    assert [each.name for each in selection.files] == ["a.pdf"]
    assert {(each.path.name, each.why.split(";")[0]) for each in selection.left_out} == {
        (".DS_Store", "hidden"),
        (".git", "hidden"),
        ("link.pdf", "a symbolic link is not followed"),
        ("folder", "a symbolic link is not followed"),
        ("pipe.pdf", "neither a file nor a folder"),
    }


@pytest.mark.parametrize(
    ("name", "why"), [(b"\xff.pdf", "not UTF-8"), (b"\x1b[31m.pdf", "control"), (b"\xc2\x9b.pdf", "control")]
)
def test_a_file_whose_name_nobody_could_know_it_by_is_left_out_and_said(
    tmp_path: Path, name: bytes, why: str
):
    _make(tmp_path, "library/a.pdf")
    (tmp_path / "library" / os.fsdecode(name)).write_bytes(b"x")
    selection = select([tmp_path / "library"])
    assert [each.name for each in selection.files] == ["a.pdf"]
    assert why in selection.left_out[0].why


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path):
    with pytest.raises(Failure, match="nothere") as caught:
        select([tmp_path / "nothere"])
    assert caught.value.code == WRONG_USAGE


def test_a_folder_without_files_is_refused_with_what_to_do(tmp_path: Path):
    _make(tmp_path, "library/.hidden")
    with pytest.raises(Failure, match="nothing to import") as caught:
        select([tmp_path / "library"])
    assert "hidden" in caught.value.why
    assert caught.value.todo


def test_the_default_key_depends_on_project_kind_names_and_contents_alone(tmp_path: Path):
    _make(tmp_path, "here/a.pdf", "here/b.pdf", "there/a.pdf", "there/b.pdf")

    def key(folder: str, *, kind: str = "auto", project: str = "Soil", a: str = "1", order: int = 1) -> str:
        uploaded = [
            Uploaded(file=file, sha256={"a.pdf": a, "b.pdf": "2"}[file.name])
            for file in select([tmp_path / folder]).files
        ]
        return default_key(kind, project, uploaded[::order])

    assert key("here") == key("there") == key("here", order=-1) == key("here", project="soil")
    assert len({key("here"), key("here", kind="pdf"), key("here", project="Sea"), key("here", a="3")}) == 4

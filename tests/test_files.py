"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from winnow.errors import UsageError
from winnow.files import as_json, check_free, replace_file


def test_json_has_null_for_what_is_not_finite():
    value = {"a": [float("nan"), (1, float("inf"))], "b": {"c": 0.5}}
    assert as_json(value) == '{"a": [null, [1, null]], "b": {"c": 0.5}}'


def half(error: BaseException):
    """Writes a part, then fails."""
    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    return write


def test_a_file_appears_in_a_folder_that_is_made_for_it(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    replace_file(path, lambda new: new.write_text("whole"))
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_while_it_is_written_the_old_file_stays(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(new: Path) -> None:
        new.write_text("new")
        assert path.read_text() == "old" and new.parent == path.parent

    replace_file(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed")])
def test_a_failed_write_leaves_the_old_file_and_is_told(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UsageError, match=r"file could not be written: .+; the file that was there is unharmed"):
        replace_file(path, half(error))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(tmp_path):
    full = OSError(28, "No space left on device")
    for size, needed in ((5_000_000, "5.0 MB"), (None, "more than 4 bytes")):
        with pytest.raises(UsageError, match=rf"written: No space left on device \({needed} needed, [\d.]+ MB free\)$"):
            replace_file(tmp_path / "file", half(full), size=size)


def test_the_old_file_may_be_kept_under_another_name(tmp_path):
    path, before = tmp_path / "file", tmp_path / "before"
    for text in ("one", "two", "three"):
        replace_file(path, lambda new, text=text: new.write_text(text), keep=before)
    assert (path.read_text(), before.read_text()) == ("three", "two")
    with pytest.raises(UsageError):
        replace_file(path, half(RuntimeError("write failed")), keep=before)
    assert (path.read_text(), before.read_text()) == ("three", "two")


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"could not be written: write failed$"):
        replace_file(tmp_path / "file", half(RuntimeError("write failed")))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")])
def test_an_interruption_and_a_bug_are_not_called_a_failed_write(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)):
        replace_file(path, half(error))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_keeps_the_rights_of_any_new_file(tmp_path):
    def write(new: Path) -> None:
        new.unlink()
        new.write_text("x")
        new.chmod(0o600)  # as safetensors does

    replace_file(tmp_path / "file", write)
    (tmp_path / "other").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_where_a_file_could_not_be_written_later_is_told_now(tmp_path):
    (tmp_path / "file").touch()
    check_free(tmp_path / "file")
    check_free(tmp_path / "away" / "deep" / "file")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    with pytest.raises(UsageError, match="is a folder; name a file"):
        check_free(tmp_path)
    for deep in ("file/m.json", "file/a/b/m.json"):
        with pytest.raises(UsageError, match="file is a file, not a folder"):
            check_free(tmp_path / deep)


def test_a_relative_path_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_free(Path("runs/a.json"))
    check_free(Path("a.json"))
    assert not any(tmp_path.iterdir())

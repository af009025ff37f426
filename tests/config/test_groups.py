import pytest

from lbt.config import groups
from lbt.errors import UserError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of one's own that goes before the program's."""
    (tmp_path / "table").mkdir()
    monkeypatch.setattr(groups, "folders", lambda: (tmp_path, groups.CONFIG_DIR))
    return tmp_path / "table"


def test_the_choices_of_every_folder_are_known_and_the_firsts_count(own):
    (own / "mine.yaml").write_text("title: Mine\n")
    (own / "quickstart.yaml").write_text("title: Other\n")
    (own / "._mine.yaml").write_bytes(b"\0\5\26\7")  # macOS's
    assert {"mine", "quickstart", "tvlars_table1"} <= set(groups.choices("table"))
    assert "._mine" not in groups.choices("table")
    assert [groups.load("table", name)["title"] for name in ("mine", "quickstart")] == ["Mine", "Other"]
    assert groups.choices("table", "tvlars_*") == ["tvlars_claims", "tvlars_table1"]


def test_an_unknown_choice_is_named_with_the_nearest():
    with pytest.raises(UserError, match='there is no study "reality_chek"; did you mean "reality_check"'):
        groups.load("reality", "reality_chek", called="study")


@pytest.mark.parametrize("content", [b"a: [1", b"a: \xff", b"a: '${b'\n"])
def test_a_file_that_cannot_be_read_is_named_in_one_line(own, content):
    (own / "mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.yaml: cannot be read: ") as caught:
        groups.load("table", "mine")
    assert "\n" not in str(caught.value)


def test_every_file_of_every_group_is_readable():
    for group in groups.groups():
        for name in groups.choices(group):
            assert groups.load(group, name) is not None

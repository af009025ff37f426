import os

import pytest
from omegaconf import OmegaConf

from lbt.config import groups
from lbt.errors import UserError
from lbt.sweep.hydra_session import loader


@pytest.fixture(autouse=True)
def none_set(tmp_path, monkeypatch):
    monkeypatch.delenv(groups.OWN, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own(tmp_path):
    """Lays files into a folder of one's own and returns it."""

    def laid(**files):
        for name, content in files.items():
            path = tmp_path / "own" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "own"

    return laid


def test_the_choices_of_both_folders_are_known(own):
    folder = own(table__mine_dot_yaml="title: Mine\nabout: It.\n", strong__one_dot_yaml="seed: 3\n")
    (folder / "table" / "._mine.yaml").write_bytes(b"\0\5\26\7")  # macOS's
    (folder / "results" / "reality").mkdir(parents=True)
    (folder / "results" / "reality" / "x.yaml").touch()
    before = groups.choices("table"), groups.groups()
    with groups.using(folder):
        assert set(groups.choices("table")) - set(before[0]) == {"mine"}
        assert set(groups.groups()) - set(before[1]) == {"strong"}  # one's own group, as Hydra has them
        assert groups.load("table", "mine")["title"] == "Mine"
        assert groups.choices("table", "tvlars_*") == ["tvlars_claims", "tvlars_table1"]
        with pytest.raises(UserError, match='there is no table "mien"; did you mean "mine"'):
            groups.load("table", "mien")
    assert (groups.choices("table"), groups.groups()) == before


def test_hydra_finds_what_the_groups_have(own):
    folder = own(preset__mine_dot_yaml="# @package _global_\nseed: 3\n", strong__one_dot_yaml="seed: 3\n")
    with groups.using(folder), loader() as found:
        assert {group: found.get_group_options(group) for group in groups.groups()} == {
            group: groups.choices(group) for group in groups.groups()
        }
        assert "mine" in found.get_group_options("preset")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("table/quickstart.yaml", "table/quickstart.yaml would replace lbt's own of that name; call it something else"),
        ("table/tvlars_table1.csv", "table/tvlars_table1.csv would replace lbt's own"),
        ("train.yaml", "train.yaml would replace lbt's own"),
        ("experiments/mine.yaml", 'there is no group "experiments"; did you mean "experiment"?'),
        ("optimizer/mine.yml", "optimizer/mine.yml: is not read; call it mine.yaml"),
    ],
)
def test_what_would_replace_a_file_or_be_overlooked_is_refused(own, file, message):
    folder = own(**{file.replace("/", "__").replace(".", "_dot_"): "title: Mine\n"})
    with pytest.raises(UserError) as caught, groups.using(folder):
        pass
    assert message in str(caught.value) and str(caught.value).startswith(f"--config-dir {folder}: ")
    assert groups.own_folder() is None


def test_a_copy_of_lbts_own_folder_is_refused_by_its_first_file(own):
    folder = own(table__quickstart_dot_yaml="title: x\n", table__cifar10_short_dot_yaml="title: x\n")
    with pytest.raises(UserError, match=r"table/cifar10_short.yaml \(and 1 more\) would replace"), groups.using(folder):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "--config-dir nowhere: no such folder"),
        ("", "--config-dir : no such folder"),
        ("file", "--config-dir file: is a file, not a folder"),
        (str(groups.CONFIG_DIR), "holds lbt's own files, which are there anyway"),
    ],
)
def test_what_is_no_folder_of_ones_own_is_refused(tmp_path, given, message):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message), groups.using(given):
        pass


def test_the_environment_stands_in_for_the_flag_which_wins(own, tmp_path, monkeypatch):
    folder = own(table__mine_dot_yaml="title: Mine\n")
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(groups.OWN, "own")
    with groups.using(None) as found:
        assert found == folder
        assert os.environ[groups.OWN] == str(folder)  # for processes that start elsewhere
        with groups.using("other"):
            assert groups.folders() == (groups.CONFIG_DIR, tmp_path / "other")
        assert groups.own_folder() == folder
    assert os.environ[groups.OWN] == "own"
    monkeypatch.setenv(groups.OWN, "nowhere")
    with pytest.raises(UserError, match=r"^\$LBT_CONFIG_DIR=nowhere: no such folder"), groups.using(None):
        pass
    monkeypatch.setenv(groups.OWN, "")
    with groups.using(None) as found:
        assert found is None and groups.folders() == (groups.CONFIG_DIR,)


def test_an_unknown_choice_is_named_with_the_nearest():
    with pytest.raises(UserError, match='there is no study "reality_chek"; did you mean "reality_check"'):
        groups.load("reality", "reality_chek", called="study")


@pytest.mark.parametrize("content", [b"a: [1", b"a: \xff", b"a: '${b'\n", b"a: 1\na: 2\n", b"5"])
def test_a_file_that_cannot_be_read_is_named_in_one_line(own, content):
    with groups.using(own(table__mine_dot_yaml=content)):
        with pytest.raises(UserError, match=r"mine\.yaml: cannot be read: ") as caught:
            groups.load("table", "mine")
        assert "\n" not in str(caught.value)


def test_every_file_of_every_group_says_what_omegaconf_reads_in_it():
    for group in groups.groups():
        for name in groups.choices(group):
            theirs = OmegaConf.to_container(OmegaConf.load(groups.path_of(group, name)), resolve=False)
            assert repr(groups.load(group, name)) == repr(theirs), name  # also the order, and 1 is not 1.0

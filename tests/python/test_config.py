"""Configuration: sources, precedence, and changing it for a while."""

from __future__ import annotations

import pytest

from rasker import config


def test_a_value_that_is_set_is_undone_when_the_block_ends():
    with config.set({"a-test.x": 1}):
        assert config.get("a-test.x") == 1
        with config.set({"a-test.x": 2, "a-test.y": 3}):
            assert config.get("a-test.x") == 2
        assert config.get("a-test.x") == 1
        assert config.get("a-test.y", None) is None
    assert config.get("a-test", None) is None


def test_keywords_of_set_write_two_underscores_for_a_dot():
    with config.set(a_test__b_c=5):
        assert config.get("a-test.b-c") == 5


def test_hyphen_and_underscore_are_equal():
    with config.set({"worker-x.a_b": 1}):
        assert config.get("worker_x.a-b") == 1
        with config.set({"worker_x.a-b": 2}):
            assert config.get("worker-x.a_b") == 2
            assert list(config.get("worker-x")) == ["a_b"]


def test_a_missing_key_raises_and_names_itself():
    with pytest.raises(KeyError, match="no\\.such\\.key"):
        config.get("no.such.key")
    assert config.get("no.such.key", default=3) == 3
    assert config.get("no.such.key", override_with=4) == 4


def test_a_scalar_can_be_replaced_by_a_level_and_comes_back():
    with config.set({"a-test": 1}):
        with config.set({"a-test.b": 2}):
            assert config.get("a-test.b") == 2
        assert config.get("a-test") == 1


def test_files_are_read_in_order_and_later_ones_win(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\ny:\n  a: 1\n")
    (tmp_path / "b.yaml").write_text("x: 2\ny:\n  b: 2\n")
    (tmp_path / "c.txt").write_text("not: read\n")
    found = config.collect([str(tmp_path)], env={})
    assert found == {"x": 2, "y": {"a": 1, "b": 2}}


def test_the_environment_wins_over_files(tmp_path):
    (tmp_path / "a.yaml").write_text("x: 1\n")
    found = config.collect([str(tmp_path)], env={"RASKER_X": "7", "OTHER_X": "8"})
    assert found == {"x": 7}


def test_variables_are_read_as_python_would():
    env = {
        "RASKER_A__B_C": "[1, 2]",
        "RASKER_FLAG": "true",
        "RASKER_NOTHING": "None",
        "RASKER_TEXT": "tcp://host:1",
    }
    assert config.collect_env(env) == {
        "a": {"b-c": [1, 2]},
        "flag": True,
        "nothing": None,
        "text": "tcp://host:1",
    }


def test_a_file_that_is_no_yaml_is_named_in_the_error(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: [1,")
    with pytest.raises(ValueError, match=r"a\.yaml"):
        list(config.collect_yaml([str(tmp_path)]))
    path.write_text("just a text")
    with pytest.raises(ValueError, match="mapping"):
        list(config.collect_yaml([str(tmp_path)]))


def test_refresh_forgets_what_was_set(tmp_path):
    mine = {"x": 9}
    config.refresh(config=mine, defaults=[{"x": 1, "y": 2}], paths=[str(tmp_path)], env={})
    assert mine == {"x": 1, "y": 2}


def test_new_defaults_change_only_what_is_still_default():
    mine, defaults = {"a": 1, "b": 5}, [{"a": 1, "b": 1}]
    config.update_defaults({"a": 2, "b": 2, "c": 3}, config=mine, defaults=defaults)
    assert mine == {"a": 2, "b": 5, "c": 3}


def test_update_priority_old_keeps_what_is_there():
    assert config.update({"x": 1}, {"x": 2, "y": 3}, priority="old") == {"x": 1, "y": 3}


def test_merge_leaves_its_arguments_alone():
    a, b = {"x": {"y": 1}}, {"x": {"z": 2}}
    assert config.merge(a, b) == {"x": {"y": 1, "z": 2}}
    assert a == {"x": {"y": 1}}


def test_pop_takes_the_key_out():
    mine = {"a": {"b": 1}}
    assert config.pop("a.b", config=mine) == 1
    assert mine == {"a": {}}
    with pytest.raises(KeyError):
        config.pop("a.b", config=mine)
    assert config.pop("a.b", default=0, config=mine) == 0


def test_environment_variables_are_expanded_everywhere(monkeypatch):
    monkeypatch.setenv("A_COLOR", "blue")
    value = {"x": "$A_COLOR", "y": [1, "${A_COLOR}"], "z": ("$A_COLOR",)}
    assert config.expand_environment_variables(value) == {
        "x": "blue",
        "y": [1, "blue"],
        "z": ("blue",),
    }


def test_ensure_file_writes_comments_once(tmp_path):
    source = tmp_path / "source.yaml"
    source.write_text("a: 1\n# said\n")
    config.ensure_file(str(source), str(tmp_path / "home"))
    target = tmp_path / "home" / "source.yaml"
    assert target.read_text() == "# a: 1\n# said\n"
    target.write_text("a: 2\n")
    config.ensure_file(str(source), str(tmp_path / "home"))
    assert target.read_text() == "a: 2\n"


def test_serialize_is_undone_by_deserialize():
    value = {"a": [1, None, "x"], "b": {"c": 1.5}}
    assert config.deserialize(config.serialize(value)) == value
    env = {"RASKER_INTERNAL_INHERIT_CONFIG": config.serialize({"x": 1, "y": 2}), "RASKER_X": "3"}
    assert config.collect_env(env) == {"x": 3, "y": 2}


def test_paths_containing_key_finds_the_files(tmp_path):
    (tmp_path / "a.yaml").write_text("a:\n  b: 1\n")
    (tmp_path / "b.yaml").write_text("c: 1\n")
    found = [p.name for p in config.paths_containing_key("a.b", [str(tmp_path)])]
    assert found == ["a.yaml"]


def test_an_old_name_warns_and_sets_the_new_one():
    with pytest.warns(UserWarning, match=r"optimization\.fuse\.ave-width"):
        with config.set({"fuse_ave_width": 123}):
            assert config.get("optimization.fuse.ave-width") == 123


def test_the_configuration_is_a_dict_that_can_be_looked_at():
    assert config.config["tokenize"]["ensure-deterministic"] is False
    assert config.global_config is config.config

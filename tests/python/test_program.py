"""The `rasker` program."""

from __future__ import annotations

import json

import pytest

from rasker.cli import main


def test_versions_are_json(capsys):
    assert main(["info", "versions"]) == 0
    assert "python" in json.loads(capsys.readouterr().out)["packages"]


def test_version_prints_and_exits(capsys):
    with pytest.raises(SystemExit) as e:
        main(["--version"])
    assert e.value.code == 0
    assert capsys.readouterr().out.startswith("rasker ")


def test_a_value_can_be_written_and_found(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("kept: 1\n")
    assert main(["config", "set", "a.b", "[1, 2]", "--file", str(path)]) == 0
    assert "kept: 1" in path.read_text()
    assert "- 2" in path.read_text()
    assert main(["config", "get", "tokenize.ensure-deterministic"]) == 0
    assert capsys.readouterr().out.endswith("False\n")


def test_a_missing_key_is_an_error_in_words(capsys):
    assert main(["config", "get", "no.such"]) == 1
    assert "no.such" in capsys.readouterr().err


def test_a_worker_without_an_address_says_what_it_needs(capsys):
    assert main(["worker"]) == 1
    assert "--scheduler-file" in capsys.readouterr().err


@pytest.mark.parametrize("bad", ["GPU", "=1", "GPU=x"])
def test_a_resource_that_cannot_be_read_is_named(bad, capsys):
    assert main(["worker", "tcp://127.0.0.1:1", "--resources", bad]) == 1
    assert repr(bad) in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "scheduler" in capsys.readouterr().out

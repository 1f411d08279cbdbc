"""Every file of statements, each beside its answer."""

from __future__ import annotations

from pathlib import Path

import pytest

import slt

FILES = sorted(Path(__file__).parent.glob("*.slt"))


def run(context, found, folder):
    """What is wrong with a record; empty if nothing is."""
    text = found.text.replace("$TMP", str(folder))
    try:
        table = context.sql(text).to_arrow()
    except Exception as error:
        if found.error:
            if slt.fails_as_it_should(found, str(error)):
                return ""
            return f"{text}\n  the error does not match /{found.error}/: {error}"
        return f"{text}\n  failed: {type(error).__name__}: {error}"
    if found.error:
        return f"{text}\n  should fail with /{found.error}/ and gave {slt.lines_of(table)}"
    return "" if found.kind == "statement" else slt.failure(found, table)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_statements_give_their_answers(path, context, tmp_path):
    wrong = []
    for found in slt.read(path):
        if text := run(context, found, tmp_path):
            wrong.append(f"{path.name}:{found.line}: {text}")
    assert not wrong, f"{len(wrong)} wrong\n" + "\n\n".join(wrong)


def test_the_suite_has_its_size():
    assert sum(len(slt.read(path)) for path in FILES) >= 600

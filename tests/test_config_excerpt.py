"""The settings of log excerpts say what is wrong with them, and never show a value to leave out."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from exporter import fields
from exporter.config_excerpt import ExcerptSettings, RedactSettings


def redact(directory: Path, **values: object) -> RedactSettings:
    return RedactSettings.model_validate(values, context=fields.Source(directory, {}))


def test_values_are_read_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "values").write_text("correct horse\n\n  pä$$word  \n", encoding="utf-8")
    read = redact(tmp_path, values_file="values", patterns=[r"ACME-\d+"])
    assert [value.get_secret_value() for value in read.values] == ["correct horse", "pä$$word"]
    assert "horse" not in repr(read)
    assert [expression.pattern for expression in read.expressions] == [r"ACME-\d+"]
    assert RedactSettings() == redact(tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"values_file": "short"}, "short: line 2 has less than 4 characters"),
        ({"values_file": "large"}, "large is larger than 64 KiB"),
        ({"values_file": "absent"}, "cannot be read"),
        ({"values_file": "binary"}, "is not text"),
        ({"values": ["correct horse"]}, "a secret does not belong in this file: use values_file"),
        ({"patterns": ["a("]}, "is no regular expression: missing )"),
        ({"patterns": ["x*"]}, "fits where nothing stands"),
        ({"patterns": "x"}, "valid tuple"),
    ],
)
def test_mistakes_are_told_without_a_value(tmp_path: Path, values: dict[str, object], said: str) -> None:
    (tmp_path / "short").write_text("correct horse\nxyz\n", encoding="utf-8")
    (tmp_path / "large").write_text("correct horse\n" * 5000, encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValidationError) as refused:
        redact(tmp_path, **values)
    assert said in str(refused.value)
    assert "horse" not in str(refused.value)


def test_patterns_are_those_of_a_repo() -> None:
    settings = ExcerptSettings(patterns={"acme/*": ("^A",), "*/web": ("^B", "^C"), "other/*": ("^D",)})
    assert [expression.pattern for expression in settings.of("acme/web")] == ["^A", "^B", "^C"]
    assert settings.of("else/api") == ()
    with pytest.raises(ValidationError, match=r"owner/\*"):
        ExcerptSettings(patterns={"acme": ("^A",)})

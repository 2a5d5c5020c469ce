"""What the user may write, and what happens to a slip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ark_framework import config as configuration
from ark_framework.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optm": {}}, ["unknown key 'optm'", "'optim'"]),
        ({"optim": {"lrr": 1}}, ["unknown key 'optim.lrr'", "'lr'"]),
        ({"tasks": [{"dataset": "x", "stepz": 1}]}, ["tasks.0.stepz", "'steps'"]),
        ({"cycles": "ten"}, ["cycles = 'ten'", "integer"]),
        ({"cycles": 0}, ["cycles = 0", "greater than 0"]),
        ({"tasks": [{}]}, ["'tasks.0.dataset' is required"]),
        ({"strategy": "cyclical"}, ["strategy = 'cyclical'", "'cyclic'"]),
        ({"views": {"size": 300}}, ["views.size 300", "store.size 256"]),
        ({"seed": {1, 2}}, ["config:"]),
    ],
)
def test_a_slip_is_one_line(values: dict[str, Any], words: list[str]) -> None:
    """The error names the key, the value and what is accepted, on one line."""
    with pytest.raises(ConfigError) as caught:
        configuration.parse(values)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", configuration.recipes())
def test_recipes_are_valid_and_read_back(name: str, tmp_path: Path) -> None:
    """Every recipe parses, and its dump parses to the same."""
    config = configuration.parse(configuration.recipe(name))
    (tmp_path / "config.yaml").write_text(configuration.dump(config))
    assert configuration.parse(configuration.load_yaml(tmp_path / "config.yaml")) == config


def test_unknown_recipe_suggests() -> None:
    """A near miss is named."""
    with pytest.raises(ConfigError, match="did you mean 'ark6'"):
        configuration.recipe("ark66")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("optim.lr=1e-3", {"optim": {"lr": 1e-3}}),
        ("x=null", {"x": None}),
        ("x=[1, 2]", {"x": [1, 2]}),
        ("name=vit", {"name": "vit"}),
    ],
)
def test_assignment(text: str, expected: dict[str, Any]) -> None:
    """``--set`` values are YAML, and an exponent is a number."""
    assert configuration.assignment(text) == expected


@pytest.mark.parametrize("text", ["a.b", "=1", "a=[1"])
def test_assignment_refuses(text: str) -> None:
    """What is not key=value says so."""
    with pytest.raises(ConfigError, match="--set"):
        configuration.assignment(text)


def test_merge_is_deep_and_later_wins() -> None:
    """Nested keys are laid over one another."""
    merged = configuration.merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"d": 4})
    assert merged == {"a": {"b": 3, "c": 2}, "d": 4}


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "a: [1\n", "!!python/object:os.system {}\n"])
def test_bad_yaml_is_one_line(content: str, tmp_path: Path) -> None:
    """A list, broken YAML and a planted object are refused, naming the file."""
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        configuration.load_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_setting_is_read_somewhere() -> None:
    """No setting is parsed and then forgotten."""
    package = Path(configuration.__file__).parent
    code = "\n".join(
        path.read_text("utf-8") for path in package.rglob("*.py") if path.name != "config.py"
    )

    def leaves(model: type[configuration.Section]) -> list[str]:
        found: list[str] = []
        for name, info in model.model_fields.items():
            kind = info.annotation
            section = isinstance(kind, type) and issubclass(kind, configuration.Section)
            found += leaves(kind) if section else [name]  # type: ignore[arg-type]
        return found

    fields = leaves(configuration.RunConfig) + list(configuration.TaskConfig.model_fields)
    unread = [name for name in fields if f".{name}" not in code]
    assert unread == []

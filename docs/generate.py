"""Write the reference pages from the code: `python docs/generate.py`.

``--check`` writes nothing and exits 1 naming the pages that are stale; ``--surface`` accepts the
public surface as it is now (see ``docs/reference/stability.md``).
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
import yaml

import ark_framework
from ark_framework import config, events, hooks, specs, testing
from ark_framework.annotations import COLUMNS, AnnotationTable
from ark_framework.cli import ark
from ark_framework.fairness.settings import FairnessConfig
from ark_framework.transfer import settings

REFERENCE = Path(__file__).parent / "reference"
SURFACE = Path(__file__).parents[1] / "tests" / "assets" / "surface.json"
WIDTH = 100  # of a terminal, so that no page depends on whose it was
NOTE = "<!-- Written by docs/generate.py; change the code and run it again. -->"
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
PROVIDER = "Called once when a run or a check names the plugin; it takes nothing and is pure."


class Undescribed(Exception):
    """Something public has no description."""


def hooks_page() -> str:
    """Every hook, and the events that observers are given."""
    lines = [_overview(hooks), "", "## Providers", "", PROVIDER, ""]
    observers: list[str] = []
    for name, hook in all_hooks().items():
        parameters = inspect.signature(hook).parameters
        entry = [f"### `{name}`", "", f"`{_signature(hook)}`", "", _described(name, hook), ""]
        (observers if parameters else lines).extend(entry)
    lines += ["## Observers", "", *observers, "## Events", ""]
    for name, event in all_events().items():
        lines += [f"### `{name}`", "", _described(name, event), ""]
        lines += [f"- `{each.name}: {_field(each)}`" for each in dataclasses.fields(event)] + [""]
    return _page("Hooks", lines)


def specs_page() -> str:
    """Every class that a plugin declares something with, and the annotation table."""
    lines = [_overview(specs), ""]
    for name, spec in all_specs().items():
        args = _arguments(spec)
        lines += [f"## `{name}`", "", _described(name, spec), ""]
        for each in dataclasses.fields(spec):
            text = _given(f"{name}.{each.name}", args.get(each.name))
            lines.append(f"- **`{each.name}`** `{_field(each)}`: {text}")
        lines.append("")
    lines += ["## Types", ""]
    for name, values in _literals(specs).items():
        lines.append(f"- `{name}`: {', '.join(f'`{value}`' for value in values)}")
    lines += ["", "## The annotation table", "", "What `DatasetSpec.read` returns.", ""]
    lines += [f"- **{name}**: {text}" for name, text in _columns()]
    return _page("Specs", lines)


def cli_page() -> str:
    """Every command's help, as a terminal of fixed width shows it."""
    lines = ["What each command says to `--help`.", ""]
    for path, context in all_commands():
        lines += [f"## `{path}`", "", "```text", context.get_help(), "```", ""]
    return _page("The command line", lines)


def config_page() -> str:
    """Every key of a configuration, and the recipes."""
    lines = [_overview(config), "", *_listed(config.RunConfig)]
    lines += ["", "## Recipes", "", "What `--recipe` names; a file or a flag goes over it.", ""]
    for recipe in config.recipes():
        text = (Path(config.__file__).parent / "recipes" / f"{recipe}.yaml").read_text("utf-8")
        lines += [f"### `{recipe}`", "", "```yaml", text.rstrip(), "```", ""]
    return _page("Configuration", lines)


def study_page() -> str:
    """Every key of a study: what commands about models on datasets may be told."""
    lines = [
        "What the file of `ark compare` holds, and what `--set` changes in `ark probe`, "
        "`ark finetune` and `ark segment`.",
        "",
    ]
    return _page("Studies", [*lines, *_listed(settings.StudyConfig), ""])


def fairness_page() -> str:
    """Every key of an audit."""
    lines = [
        "What the file of `ark fairness -c` may hold, and what `--set` changes.",
        "",
    ]
    return _page("Audits", [*lines, *_listed(FairnessConfig), ""])


def conformance_page() -> str:
    """Every check of the conformance kit."""
    lines = [_overview(testing), ""]
    for kind, checks in testing.CHECKS.items():
        lines += [f"## {kind.capitalize()}", ""]
        lines += [f"- **`{each.__name__}`**: {_described(each.__name__, each)}" for each in checks]
        lines.append("")
    return _page("The conformance kit", lines)


PAGES: dict[str, Callable[[], str]] = {
    "hooks.md": hooks_page,
    "specs.md": specs_page,
    "cli.md": cli_page,
    "config.md": config_page,
    "study.md": study_page,
    "fairness.md": fairness_page,
    "conformance.md": conformance_page,
}


def surface() -> dict[str, Any]:
    """Return what a plugin or a script may rely on, as plain data."""
    return {
        "hooks": {name: list(inspect.signature(h).parameters) for name, h in all_hooks().items()},
        "specs": {name: _fields(spec) for name, spec in all_specs().items()},
        "types": {name: list(values) for name, values in _literals(specs).items()},
        "events": {name: _fields(event) for name, event in all_events().items()},
        "columns": list(COLUMNS),
        "ark_framework": sorted(ark_framework.__all__),
        "ark_framework.testing": sorted(testing.__all__),
        "commands": {path: _options(context) for path, context in all_commands()},
        "config": [path for path, _, _ in all_keys(config.RunConfig)],
        "study": [path for path, _, _ in all_keys(settings.StudyConfig)],
        "fairness": [path for path, _, _ in all_keys(FairnessConfig)],
    }


def all_hooks() -> dict[str, Any]:
    """Return the hooks by name, in the order of the module."""
    found = vars(hooks).items()
    return {name: hook for name, hook in found if name.startswith("ark_") and callable(hook)}


def all_specs() -> dict[str, type]:
    """Return the spec classes by name."""
    return _dataclasses(specs)


def all_events() -> dict[str, type]:
    """Return the event classes by name, what they are made of first."""
    return _dataclasses(events)


def all_commands() -> Iterator[tuple[str, click.Context]]:
    """Yield every command as it is typed, groups before what they hold."""
    yield from _commands(ark, "ark", None)


def all_keys(
    model: type[config.Section],
) -> Iterator[tuple[str, type[config.Section], str]]:
    """Yield every key's dotted path, its section and its name there; a section's after the rest."""
    yield from _keys(model, "")


def _listed(whole: type[config.Section]) -> list[str]:
    lines, section = [], None
    for path, model, name in all_keys(whole):
        if model is not section:
            section = model
            heading = f"`{path.rpartition('.')[0]}`" if "." in path else "Top level"
            lines += ["", f"## {heading}", "", _described(model.__name__, model), ""]
        lines.append(f"- **`{path}`** {_key(model, name)}")
    return lines


def _commands(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Context]]:
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, **command.context_settings}
    context = click.Context(command, parent, name, **settings)
    yield context.command_path, context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found, each
            yield from _commands(found, each, context)


def _keys(model: type[config.Section], prefix: str) -> Iterator[tuple[str, Any, str]]:
    inner: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, config.Section):
            inner.append((f"{prefix}{name}.", type(field.default)))
            continue
        yield f"{prefix}{name}", model, name
        if name == "tasks":
            inner.append(("tasks[].", config.TaskConfig))
        if name == "models":
            inner.append(("models.NAME.", settings.ModelEntry))
        if name == "folds":
            inner.append(("folds.", settings.FoldsConfig))
    for path, section in inner:
        yield from _keys(section, path)


def _key(model: type[config.Section], name: str) -> str:
    field = model.model_fields[name]
    own = (inspect.get_annotations(each) for each in model.__mro__)
    kind = next(each[name] for each in own if name in each)
    bounds = " and ".join(
        f"{sign} {getattr(each, word):g}"
        for each in field.metadata
        for word, sign in BOUNDS.items()
        if hasattr(each, word)
    )
    default = "required"
    if not field.is_required():
        value = json.loads(json.dumps(field.get_default(call_default_factory=True)))
        shown = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        default = f"default `{shown}`"
    facts = "; ".join(filter(None, [f"`{kind}`", default, bounds]))
    return f"({facts}): {_given(f'{model.__name__}.{name}', field.description)}"


def _fields(kind: type) -> dict[str, str]:
    return {each.name: _field(each) for each in dataclasses.fields(kind)}


def _field(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"{field.type} = {field.default_factory()!r}"
    if field.default is not dataclasses.MISSING:
        return f"{field.type} = {field.default!r}"
    return str(field.type)


def _options(context: click.Context) -> list[str]:
    found = []
    for each in context.command.params:
        names = [*each.opts, *each.secondary_opts]
        found.append("/".join(names) if isinstance(each, click.Option) else str(each.name).upper())
    return found


def _dataclasses(module: Any) -> dict[str, type]:
    """Return a module's own dataclasses, in the order of their definition."""
    return {
        name: kind
        for name, kind in vars(module).items()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
        if kind.__module__ == module.__name__
    }


def _literals(module: Any) -> dict[str, tuple[str, ...]]:
    """Return the module's own names for choices."""
    found = vars(module).items()
    return {name: get_args(each) for name, each in found if name[0].isupper() and get_args(each)}


def _arguments(kind: type) -> dict[str, str]:
    """Return the text of each argument of a Google docstring."""
    _, _, text = inspect.getdoc(kind).partition("Args:\n")  # type: ignore[union-attr]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: _markdown(words) for name, words in found}


def _columns() -> list[tuple[str, str]]:
    """Return the rows of the table in the module's docstring."""
    text = sys.modules[AnnotationTable.__module__].__doc__ or ""
    rows = re.findall(r"^(\S.*?\S) {2,}(\S.*)$", text, re.MULTILINE)
    found = [(_markdown(name), _markdown(text)) for name, text in rows if name[0] != "="]
    missing = {f"`{name}`" for name in COLUMNS} - {name for name, _ in found}
    if missing:
        raise Undescribed(f"column {min(missing)} has no description in annotations.__doc__")
    return found


def _signature(hook: Callable[..., Any]) -> str:
    return f"{hook.__name__}{inspect.signature(hook)}".replace("'", "")


def _overview(module: Any) -> str:
    """Return a module's docstring without its title line."""
    return _prose(inspect.getdoc(module).partition("\n\n")[2])  # type: ignore[union-attr]


def _described(name: str, thing: Any) -> str:
    """Return the docstring before its arguments; of a class, its own and not a parent's."""
    own = thing.__doc__ or ""
    if own.startswith(f"{name}("):  # what dataclass writes where there is none
        own = ""
    return _given(name, _prose(inspect.cleandoc(own).partition("Args:\n")[0]))


def _given(name: str, text: str | None) -> str:
    if not text or not text.strip():
        raise Undescribed(f"{name} has no description: write one where it is defined")
    return text.strip()


def _prose(text: str) -> str:
    """Return paragraphs on one line each; indented code keeps its lines."""
    parts = re.split(r"\n\n+", text.strip())
    return "\n\n".join(part if part.startswith("    ") else _markdown(part) for part in parts)


def _markdown(text: str) -> str:
    """Turn a docstring's markup into Markdown's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").replace("::", ":").split())


def _page(title: str, lines: list[str]) -> str:
    text = "\n".join([NOTE, "", f"# {title}", "", *lines])
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def stale() -> list[str]:
    """Return the names of the pages that are not as they would be written."""
    return [name for name, page in PAGES.items() if page() != _kept(REFERENCE / name)]


def _kept(path: Path) -> str | None:
    return path.read_text("utf-8") if path.is_file() else None


def main(args: list[str] | None = None) -> int:
    """Write the pages, check them, or accept the surface."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    parser.add_argument("--surface", action="store_true", help="accept the public surface")
    wanted = parser.parse_args(args)
    if wanted.check:
        found = stale()
        for name in found:
            print(f"docs/reference/{name} is stale: run python docs/generate.py", file=sys.stderr)
        return 1 if found else 0
    if wanted.surface:
        text = json.dumps(surface(), indent=1, ensure_ascii=False)
        SURFACE.write_text(text + "\n", encoding="utf-8")
        return 0
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

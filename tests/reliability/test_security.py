"""What the code never does, and what a terminal is never told: read from the source, and tried."""

from __future__ import annotations

import ast
import io
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ark_framework
from ark_framework import cli
from ark_framework.cli.console import console, sheet
from ark_framework.report.page import environment
from ark_framework.text import is_name, markdown, printable

HOME = Path(ark_framework.__file__).parents[1]
SOURCES = [
    *sorted((HOME / "ark_framework").rglob("*.py")),
    *(path for path in sorted((HOME / "plugins").glob("*/*.py"))),
]
# Modules that can run what they read, or reach beyond this machine; and who may import them.
RISKY = {
    "pickle": {"decoding.py", "tensors.py"},  # see test_pickle
    # The conformance kit imports a plugin in a fresh interpreter; the doctor asks nvidia-smi.
    "subprocess": {"hooks.py", "machine.py"},
    "socket": {"locks.py", "rendezvous.py"},  # this machine's name; the ranks of this machine
    "random": {"verdict.py"},  # its state is watched, nothing is drawn
    "urllib": {"links.py"},  # how a name is written in an address; nothing is opened
    **dict.fromkeys(("marshal", "shelve", "dill", "joblib", "cloudpickle", "requests", "http")),
    **dict.fromkeys(("httpx", "aiohttp", "ftplib", "smtplib", "telnetlib", "xmlrpc", "tarfile")),
    **dict.fromkeys(("xml", "lxml", "ctypes", "pty", "code", "huggingface_hub", "wandb")),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.Loader"),
    *("pickle.load", "pd.read_pickle", "pandas.read_pickle", "torch.hub.load", "torch.jit.load"),
    *("tempfile.mktemp", "np.fromregex", "pd.eval", "torch.package.PackageImporter"),
}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return a module's calls and imports."""
    kinds = (ast.Call, ast.Import, ast.ImportFrom)
    return tuple(n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, kinds))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call by the dotted name that it goes by."""
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imports(path: Path) -> Iterator[str]:
    """Yield the top of every module that is imported, wherever it stands."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def keywords(call: ast.Call) -> dict[str, str]:
    """Return a call's keywords as they are written."""
    return {each.arg or "**": ast.unparse(each.value) for each in call.keywords}


def test_there_is_something_to_look_at() -> None:
    """Else all of this would pass for nothing."""
    assert len(SOURCES) > 150
    found = [name for path in SOURCES for name, _ in calls(path)]
    assert found.count("torch.load") >= 1
    assert "np.load" in found


def test_checkpoints_are_read_as_tensors_alone() -> None:
    """``weights_only=True`` stands at every ``torch.load``; there is no second try without."""
    for path in SOURCES:
        for name, call in calls(path):
            assert keywords(call).get("weights_only", "True") == "True", path
            if name == "torch.load":
                assert keywords(call).get("weights_only") == "True", path


def test_few_types_are_read_beside_tensors() -> None:
    """One module widens what ``weights_only`` lets through, by what its callers list."""
    users = {path.name for path in SOURCES for name, _ in calls(path) if "safe_globals" in name}
    assert users <= {"tensors.py"}


def test_arrays_hold_no_objects() -> None:
    """``allow_pickle`` is never on: neither where arrays are read nor where they are written."""
    for path in SOURCES:
        for _, call in calls(path):
            assert keywords(call).get("allow_pickle", "False") == "False", path


def test_nothing_is_called_that_runs_what_it_reads() -> None:
    """No evaluation of text, no shell, no loader of objects, no predictable temporary file."""
    for path in SOURCES:
        for name, call in calls(path):
            assert name not in CALLS, f"{path}: {name}"
            assert "shell" not in keywords(call), f"{path}: {name}"
            assert not name.endswith((".extractall", ".extract")) or "str" in name, path


def test_pickles_come_from_this_process_alone() -> None:
    """The one ``pickle.loads`` is a worker's, of what its parent gave it."""
    found = [(path.name, n) for path in SOURCES for n, _ in calls(path) if n.startswith("pickle.")]
    assert sorted(found) == [("decoding.py", "pickle.dumps"), ("decoding.py", "pickle.loads")]


def test_risky_modules_have_named_users() -> None:
    """Among them all that talks to the network."""
    for path in SOURCES:
        for module in set(imports(path)) & RISKY.keys():
            assert path.name in (RISKY[module] or ()), f"{path} imports {module}"


def test_only_one_place_prints_unseen() -> None:
    """What is echoed goes through ``plain.echo``, so that no terminal obeys a name."""
    for path in SOURCES:
        if path.parent.name == "cli" and path.name != "plain.py":
            assert "click.echo" not in dict(calls(path)), path
            assert "click.secho" not in dict(calls(path)), path
        if path.parent.name == "cli" and path.name != "console.py":
            assert "Console" not in dict(calls(path)), f"{path}: rich's console reads markup"


def test_templates_escape() -> None:
    """Every template, and none switches it off, but for a script of our own that a page pins."""
    assert environment().autoescape is True
    ours = "{% block script %}<script>{{ script|safe }}</script>{% endblock %}\n"
    for path in sorted((HOME / "ark_framework" / "report" / "templates").glob("*.html")):
        text = path.read_text("utf-8")
        if path.name == "story.html":
            assert text.count(ours) == 1
            assert "script-src 'sha256-{{ digest }}'" in text
            text = text.replace(ours, "")
        assert not re.search(
            r"\|\s*safe|autoescape|<script|<[^>]*\bon[a-z]+=|=\{\{|https?://", text
        ), path.name
    assert "default-src 'none'" in environment().get_template("base.html").render()


def test_bandit_rules_are_on_and_each_exception_says_why() -> None:
    """For all that ``make lint`` looks at."""
    rules = tomllib.loads((HOME / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in rules["select"]
    assert {rule for rule in rules["ignore"] if rule.startswith("S")} == {"S101", "S603"}
    for folder in ("ark_framework", "plugins", "examples", "benchmarks", "tests"):
        for path in (HOME / folder).rglob("*.py"):
            for line in path.read_text("utf-8").splitlines():
                if re.search(r"# noqa: S\d", line):
                    assert re.search(r"# noqa: S\d+ - \w+", line), f"{path}: {line.strip()}"


ATTACKS = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\rb",
    "a\x08\x08b",
    "\u202eabc",
    "\u2066abc\u2069",
    "line\u2028line",
    "\udcff.png",
    "a\x01b",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_terminal_obeys_no_name(
    attack: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, ledger
) -> None:
    """Neither in an error nor in a table: what it would obey is spelled out."""
    assert printable(printable(attack)) == printable(attack) != attack
    assert not is_name(attack)
    assert cli.run(["train", "-c", f"{attack}.yaml"]) == 2
    made = console()
    table = sheet("column", attack, title=attack)
    table.add_row(attack, attack)
    made.print(attack, style="bold")
    made.print(table)
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ")
    for text in (captured.err, captured.out, markdown(attack)):
        assert re.fullmatch(r"[\n\x20-\x7e\u2500-\u257f]*", text), repr(text)
    ledger.survived("terminal escape")


@pytest.mark.parametrize(
    "name", ["[red]x[/red]", "[/oops]", "[link=file:///etc]x", ":smile:", "[@click=x]y"]
)
def test_names_are_no_markup(name: str, ledger) -> None:
    """Nor do they end a line in an error of rich's."""
    made = console()
    made.file = io.StringIO()
    table = sheet(name, title=name)
    table.add_row(name)
    made.print(name)
    made.print(table)
    assert made.file.getvalue().count(name) == 4
    ledger.survived("terminal markup")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script>"),
        ("[x](javascript:y)", r"\[x](javascript:y)"),
        ("`code` *b* _i_", r"\`code\` \*b\* \_i\_"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_takes_text_as_it_is(text: str, said: str) -> None:
    """No tag, column, link or line of its own."""
    assert markdown(text) == said

"""Guards, and what the code looks like without each: the tests must notice that it is gone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One guard of ``ark_framework``.

    Attributes:
        name: What it keeps from happening.
        file: Where it is, below the package.
        code: Its text, which stands there once.
        without: What to put there instead.
        tests: Tests, as pytest takes them, of which one at least must fail without it.
    """

    name: str
    file: str
    code: str
    without: str
    tests: tuple[str, ...]


GUARDS: tuple[Guard, ...] = (
    Guard(
        name="a checkpoint is written beside",
        file="checkpoint.py",
        code='beside = path.with_name(f".{path.name}.part")',
        without="beside = path",
        tests=("tests/reliability/test_crashes.py",),
    ),
    Guard(
        name="a bad step moves nothing",
        file="pretrain.py",
        code="    state.optimizer.found_inf = state.bad.held  # type: ignore[attr-defined]\n",
        without="",
        tests=(
            "tests/test_resume.py::test_a_loss_that_is_not_finite_stops_the_run",
            "tests/reliability/test_bad_steps.py",
        ),
    ),
    Guard(
        name="what is logged twice is cut off",
        file="observers.py",
        code="            if size > offset:\n",
        without="            if False:\n",
        tests=("tests/test_resume.py::test_killed_at_random_steps",),
    ),
    Guard(
        name="draws are a function of the step",
        file="pretrain.py",
        code="    runtime.seed_step(plan.seed, state.step)\n",
        without="",
        tests=("tests/test_resume.py::test_what_torch_draws_is_drawn_by_the_step",),
    ),
    Guard(
        name="one run in a folder",
        file="run.py",
        code="            if (who := locks.take(file)) is not None:\n",
        without="            if (who := locks.take(file)) == 0:\n",
        tests=("tests/reliability/test_crashes.py::test_two_runs_on_one_folder",),
    ),
    Guard(
        name="a lock follows no link",
        file="locks.py",
        code=" | os.O_NOFOLLOW",
        without="",
        tests=("tests/reliability/test_confinement.py",),
    ),
    Guard(
        name="no code in a checkpoint",
        file="tensors.py",
        code="weights_only=True",
        without="weights_only=False",
        tests=("tests/reliability/test_broken_checkpoints.py",),
    ),
    Guard(
        name="films stay below their root",
        file="images.py",
        code="    if not real.is_relative_to(root.resolve()):\n",
        without="    if False:\n",
        tests=("tests/test_images.py",),
    ),
    Guard(
        name="films have a size",
        file="pixels.py",
        code="    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:\n",
        without="    if False:\n",
        tests=("tests/test_images.py",),
    ),
    Guard(
        name="masks stay below their root",
        file="builtin/table.py",
        code="    if not path.resolve().is_relative_to(options.root.resolve()):\n",
        without="    if False:\n",
        tests=("tests/reliability/test_confinement.py",),
    ),
    Guard(
        name="tasks have plain names",
        file="config.py",
        code='        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",  # files are named after it\n',
        without="",
        tests=("tests/reliability/test_confinement.py",),
    ),
    Guard(
        name="pages are escaped",
        file="report/page.py",
        code="autoescape=True",
        without="autoescape=False",
        tests=("tests/reliability/test_sharing.py",),
    ),
    Guard(
        name="a terminal obeys no data",
        file="cli/console.py",
        code="markup=False, emoji=False, ",
        without="",
        tests=("tests/reliability/test_security.py",),
    ),
    Guard(
        name="nothing of a credentialed dataset leaves",
        file="exposure.py",
        code=' if part.access != "credentialed"',
        without="",
        tests=(
            "tests/test_published_weights.py",
            "tests/test_leaks.py",
            "tests/reliability/test_sharing.py",
        ),
    ),
    Guard(
        name="a store is that of the films",
        file="store.py",
        code="            if np.array_equal(some.stats()[0], sizes[rows]):\n",
        without="            if True:\n",
        tests=("tests/test_store.py", "tests/test_input.py"),
    ),
    Guard(
        name="room is asked for first",
        file="unfinished.py",
        code="    if free < need:\n",
        without="    if False:\n",
        tests=("tests/test_store.py", "tests/reliability"),
    ),
    Guard(
        name="a disabled plugin is not imported",
        file="registry.py",
        code="    if record.problem:\n",
        without="    if False:\n",
        tests=("tests/reliability/test_offline.py", "tests/test_registry.py"),
    ),
    Guard(
        name="a memory map has its room",
        file="arrays.py",
        code="            os.posix_fallocate(file.fileno(), 0, made.offset + made.nbytes)\n",
        without="            pass\n",
        tests=("tests/reliability/test_crashed_work.py::test_a_full_disk",),
    ),
    Guard(
        name="a memory map without room is refused",
        file="arrays.py",
        code="        if error.errno in (errno.ENOSPC, errno.EDQUOT):",
        without="        if False:",
        tests=("tests/reliability/test_crashed_work.py::test_a_memory_map_asks_for_its_room",),
    ),
    Guard(
        name="black films are no twins",
        file="twins.py",
        code="rows = np.flatnonzero(keys != flat.view(np.uint64) @ factors)",
        without="rows = np.arange(len(keys))",
        tests=("tests/test_audit.py",),
    ),
)

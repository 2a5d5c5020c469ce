"""Logistic regressions in batch against scikit-learn, one by one, and gradients in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ark_framework.errors import ConfigError, DataError
from ark_framework.transfer import linear
from ark_framework.transfer.linear import Problems, Solution, solve, solve_small

# Tight enough for coefficients to agree, within what float32 products hold.
TOL = 1e-6


def world(rows: int = 300, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated features off zero ``(N, D)`` and three labels ``(N, 3)``, some unlabelled."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) / width**0.5 + 0.5
    y = (x[:, :3] + rng.normal(size=(rows, 3)) > [0.2, 1.0, 2.0]).astype(np.float32)
    y[rng.random(y.shape) < 0.1] = np.nan
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)


def fold_weights(rows: int, folds: int = 4) -> torch.Tensor:
    """Each column leaves every ``folds``-th film out."""
    return (torch.arange(rows)[:, None] % folds != torch.arange(folds)).float()


def reference(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, c: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's coefficients ``(K, D)`` and intercepts ``(K,)``."""
    model = LogisticRegression(C=c, tol=1e-9, max_iter=100_000)
    model.fit(x.double().numpy(), y.numpy(), sample_weight=weight.double().numpy())
    return model.coef_, model.intercept_


def assert_alike(
    found: tuple[torch.Tensor, torch.Tensor], expected: tuple[np.ndarray, np.ndarray]
) -> None:
    scale = np.abs(expected[0]).max()
    coef = found[0].double().numpy().reshape(expected[0].shape)
    np.testing.assert_allclose(coef, expected[0], atol=2e-3 * scale)
    np.testing.assert_allclose(found[1].double().numpy().reshape(-1), expected[1], atol=5e-3)


@pytest.mark.parametrize("width", [40, 400])
def test_labels_folds_and_regularizations_equal_scikit_learn(width: int) -> None:
    """Each of them alone, unlabelled films out, with more films than features and with fewer.

    Without the preconditioner or L-BFGS's memory the iterations are several times as many.
    """
    x, y = world(width=width)
    weights, c = fold_weights(len(x)) * torch.linspace(0.5, 2.0, len(x))[:, None], (0.01, 1.0)
    solution = solve(Problems.grid(x, y, weights=weights, c=c), tol=TOL)
    assert solution.converged.all()
    taken = solution.iterations.reshape(12, 2).amax(0)
    assert (taken <= torch.tensor([20, 120])).all()
    coef = solution.coef.reshape(3, 4, 2, width)
    intercept = solution.intercept.reshape(3, 4, 2)
    for label, fold, which in ((0, 0, 0), (1, 2, 1), (2, 3, 1), (2, 1, 0)):
        known = ~y[:, label].isnan()
        expected = reference(x[known], y[known, label], weights[known, fold], c[which])
        at = (label, fold, which)
        assert_alike((coef[at], intercept[at]), expected)


def test_the_gradient_vanishes_and_is_told() -> None:
    """Measured in float64 it is within the tolerance and what the solution says it is."""
    x, y = world()
    weights = fold_weights(len(x))
    solution = solve(Problems.grid(x, y, weights=weights, c=(0.1,)), tol=1e-4)
    for index in range(12):
        label, fold = divmod(index, 4)
        weight = weights[:, fold].double() * ~y[:, label].isnan()
        coef = solution.coef[index].double()
        scores = x.double() @ coef + solution.intercept[index].double()
        residual = weight * (scores.sigmoid() - y[:, label].double().nan_to_num())
        slope = torch.cat([x.double().T @ residual + coef / 0.1, residual.sum()[None]]).abs().max()
        assert slope <= 1e-4 * weight.sum()
        assert abs(solution.gradient[index] - slope) < 1e-5 * weight.sum()
        assert solution.rows[index] == weight.sum()


def test_a_soft_label_is_two_weighted_films() -> None:
    """A target of 0.3 is the film as a positive of weight 0.3 and a negative of weight 0.7."""
    x, _ = world()
    soft = torch.from_numpy(np.random.default_rng(1).random(len(x)).astype(np.float32))
    solution = solve(Problems.grid(x, soft[:, None], c=(0.1,)), tol=TOL)
    hard = torch.cat([torch.ones(len(x)), torch.zeros(len(x))])
    expected = reference(torch.cat([x, x]), hard, torch.cat([soft, 1 - soft]), 0.1)
    assert_alike((solution.coef, solution.intercept), expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_exclusive_classes_equal_scikit_learn(classes: int) -> None:
    """Softmax in folds; two classes are the binary problem with twice the penalty's room."""
    x, _ = world()
    label = (x[:, :classes] + torch.randn(len(x), classes, generator=torch.Generator())).argmax(1)
    y = torch.nn.functional.one_hot(label, classes).float()
    y[::7] = torch.nan
    weights = fold_weights(len(x))
    solution = solve(Problems.grid(x, y, weights=weights, c=(0.1,), exclusive=True), tol=TOL)
    assert solution.converged.all()
    known = ~y[:, 0].isnan()
    # Halved coefficients of either sign have half the squared norm of their difference.
    c = 0.1 if classes > 2 else 0.2
    expected = reference(x[known], label[known], weights[known, 1], c)
    coef, intercept = solution.coef[1], solution.intercept[1]
    if classes == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    assert_alike((coef, intercept), expected)


@pytest.mark.parametrize("exclusive", [False, True])
def test_problems_with_films_of_their_own_equal_scikit_learn(exclusive: bool) -> None:
    """A few films of many features, padding left out; C by problem."""
    films, classes = 12, 3
    x, _ = world(rows=5 * films, width=200)
    x = x.reshape(5, films, 200)
    label = torch.arange(films).repeat(5, 1) % (classes if exclusive else 2)
    y = torch.nn.functional.one_hot(label).float() if exclusive else label.float()
    mask = torch.ones(5, films)
    mask[1, 9:], mask[3, 6:] = 0, 0
    x[1, 9:] = 1e3  # padding may hold anything
    c = torch.tensor([0.01, 0.1, 1.0, 1.0, 0.001])
    solution = solve_small(x, y, mask, c=c, tol=1e-8)
    assert solution.converged.all()
    assert solution.coef.dtype == x.dtype
    for index in range(5):
        kept = mask[index] > 0
        expected = reference(x[index, kept], label[index, kept], mask[index, kept], float(c[index]))
        assert_alike((solution.coef[index], solution.intercept[index]), expected)


def same(one: Solution, two: Solution) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(two, name))
        for name in ("coef", "intercept", "gradient", "iterations")
    )


def test_together_in_blocks_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds at once, in small blocks and alone come to one solution; twice, to the same bits."""
    x, y = world()
    problems = Problems.grid(x, y, weights=fold_weights(len(x)), c=(0.01, 1.0))
    together = solve(problems, tol=TOL)
    assert same(together, solve(problems, tol=TOL))
    alone = solve(Problems.grid(x, y, weights=fold_weights(len(x))[:, 2:3], c=(1.0,)), tol=TOL)
    torch.testing.assert_close(
        together.coef.reshape(3, 4, 2, -1)[:, 2, 1], alone.coef, rtol=0, atol=2e-3
    )
    monkeypatch.setattr(linear, "BLOCK", 2 * len(x))
    blocks = solve(problems, tol=TOL)
    torch.testing.assert_close(blocks.coef, together.coef, rtol=0, atol=2e-3)


@pytest.mark.parametrize("tol", [0.1, 1e-3])
def test_films_left_out_have_no_say(tol: float) -> None:
    """However early a fold's fit stops, it is the same with other labels on the films left out."""
    x, y = world()
    weights = fold_weights(len(x))
    solution = solve(Problems.grid(x, y, weights=weights), tol=tol)
    for fold in range(4):
        other = torch.where(weights[:, fold, None] > 0, y, 1 - y)
        again = solve(Problems.grid(x, other, weights=weights), tol=tol)
        one, two = (each.coef.reshape(3, 4, -1)[:, fold] for each in (solution, again))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_what_cannot_be_fitted_says_why() -> None:
    """One class, or no rows: NaN and a reason, and the others are as if it were not there."""
    x, y = world()
    broken = torch.stack([torch.ones(len(x)), torch.full((len(x),), torch.nan)], 1)
    weights = torch.cat([fold_weights(len(x))[:, :1], torch.zeros(len(x), 1)], 1)
    solution = solve(Problems.grid(x, torch.cat([broken, y], 1), weights=weights), tol=TOL)
    whys = [linear.ONE_CLASS, linear.NO_ROWS, linear.NO_ROWS, linear.NO_ROWS]
    assert solution.reason == (*whys, *("", linear.NO_ROWS) * 3)
    empty = torch.tensor([bool(why) for why in solution.reason])
    assert solution.coef[empty].isnan().all()
    assert not solution.converged[empty].any()
    alone = solve(Problems.grid(x, y, weights=weights[:, :1]), tol=TOL)
    torch.testing.assert_close(solution.coef[~empty], alone.coef, rtol=0, atol=2e-3)
    few = solve_small(x[None, :4], torch.ones(1, 4), torch.ones(1, 4))
    assert few.reason == (linear.ONE_CLASS,)
    assert few.coef.isnan().all()


def test_a_class_that_a_fold_lacks_gets_no_chance() -> None:
    """The other classes are scikit-learn's without it; its probability is 0."""
    x, _ = world()
    label = torch.arange(len(x)) % 4
    y = torch.nn.functional.one_hot(label).float()
    weights = torch.stack([torch.ones(len(x)), (label != 2).float()], 1)
    solution = solve(Problems.grid(x, y, weights=weights, c=(0.1,), exclusive=True), tol=TOL)
    assert solution.converged.all()
    coef, intercept = solution.coef[1], solution.intercept[1]
    assert (x @ coef.T + intercept).softmax(1)[:, 2].max() == 0
    kept = torch.tensor([0, 1, 3])
    expected = reference(x[label != 2], label[label != 2], weights[label != 2, 1], 0.1)
    assert_alike((coef[kept], intercept[kept]), expected)


def test_too_few_iterations_are_not_hidden() -> None:
    x, y = world()
    solution = solve(Problems.grid(x, y, c=(10.0,)), tol=TOL, max_iter=1)
    assert not solution.converged.any()
    assert (solution.gradient > TOL * solution.rows).all()
    assert solution.iterations.tolist() == [1, 1, 1]


def test_unusable_input_is_one_line() -> None:
    x, y = world()
    with pytest.raises(ConfigError, match="above 0"):
        solve(Problems.grid(x, y, c=(0.0,)))
    with pytest.raises(DataError, match="negative"):
        solve(Problems.grid(x, y, weights=-torch.ones(len(x), 1)))
    x[3, 3] = torch.inf
    with pytest.raises(DataError, match="not finite"):
        solve(Problems.grid(x, y))

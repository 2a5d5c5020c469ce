"""Logistic regression, many problems at once: labels, folds, draws and regularizations in batch.

The objective is scikit-learn's, ``C * sum(weight * loss) + ||coef||^2 / 2`` with a free intercept:
binary cross-entropy, or softmax over exclusive classes.  So is the stopping rule: the largest
absolute entry of the gradient of ``sum(weight * loss) + ||coef||^2 / (2 C)`` is at most ``tol``
times the sum of the weights, which is the ``gtol`` of ``LogisticRegression(solver="lbfgs")`` on
its mean objective (scikit-learn 1.9).  Its default of 1e-4 leaves the coefficients of rare labels
at C = 1 open, hence 1e-5 here.

Problems over the same films share one rotation to the eigenvectors of the films' Gram matrix, in
which a diagonal preconditions each of them.  Few-shot problems, which have their own few films,
are rotated to the span of those films.

Every problem starts from its classes' shares.  A fold that started from a fit on all films would
keep what that fit knows of the films left out, in every direction that the stopping rule lets be:
a label of 1 % then reaches an AUROC of 1 on films it was not to see.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ark_framework.errors import ConfigError, DataError
from ark_framework.transfer.lbfgs import Batch, Space, minimize

# Films x classes x problems solved together; some ten arrays of this many numbers are held.
BLOCK = 2**23
# Rounding between here and the gradient that is measured at the end.
SLACK = 0.9
TOL, MOST = 1e-5, 500
NO_ROWS, ONE_CLASS = "no rows", "one class only"


@dataclass(frozen=True, kw_only=True)
class Problems:
    """P problems over the same films; problem p is ``target[p]``, ``weight[p]`` and ``c[p]``.

    Attributes:
        x: Features ``(N, D)``, float32 as a rule; best standardized.
        targets: ``(N, T)`` in [0, 1], NaN where a film has no label; for exclusive classes
            ``(N, K)``, a distribution in each row or NaN.
        weights: Weights ``(N, M)`` of films, 0 for those that are not in, such as a fold's.
        target: Column ``(P,)`` of ``targets``; zeros for exclusive classes.
        weight: Column ``(P,)`` of ``weights``.
        c: Inverse regularization ``(P,)``.
        exclusive: Whether ``targets`` are classes that exclude one another.
    """

    x: Tensor
    targets: Tensor
    weights: Tensor
    target: Tensor
    weight: Tensor
    c: Tensor
    exclusive: bool = False

    @classmethod
    def grid(
        cls,
        x: Tensor,
        targets: Tensor,
        *,
        weights: Tensor | None = None,
        c: tuple[float, ...] = (1.0,),
        exclusive: bool = False,
    ) -> Problems:
        """Cross T targets (1 if exclusive), M columns of weights and C values, in that order.

        A solution's first axis unflattens to ``(T, M, len(c))``.
        """
        weights = torch.ones_like(x[:, :1]) if weights is None else weights
        axes = (1 if exclusive else targets.shape[1], weights.shape[1], len(c))
        index = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in axes))
        return cls(
            x=x,
            targets=targets,
            weights=weights,
            target=index[:, 0],
            weight=index[:, 1],
            c=torch.tensor(c, dtype=x.dtype, device=x.device)[index[:, 2]],
            exclusive=exclusive,
        )

    @property
    def together(self) -> int:
        """How many problems fit into memory together."""
        classes = self.targets.shape[1] if self.exclusive else 1
        return BLOCK // (classes * len(self.x))

    def batch(self, chosen: Tensor) -> Batch:
        """Return some problems' targets and weights, film by film."""
        weights = self.weights.to(self.x.dtype).T[self.weight[chosen]]
        if self.exclusive:
            y = self.targets.to(self.x.dtype).T.expand(len(chosen), -1, -1)
        else:
            y = self.targets.to(self.x.dtype).T[self.target[chosen]].unsqueeze(1)
        return Batch.make(y, weights, self.c[chosen].to(self.x.dtype))


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What P problems came to; ``K`` stands in shapes for exclusive classes alone.

    Attributes:
        coef: ``(P, [K,] D)`` in the features' type; NaN where there is nothing to fit.
        intercept: ``(P, [K])``; minus infinity for an exclusive class without rows, whose
            coefficients are 0.
        gradient: Largest absolute entry ``(P,)`` of the gradient of
            ``sum(weight * loss) + ||coef||^2 / (2 C)``, computed anew from ``coef``.
        rows: Sum ``(P,)`` of the weights.
        iterations: ``(P,)``.
        converged: ``(P,)``: ``gradient <= tol * rows``.
        reason: Why there is nothing, an empty string where there is.
    """

    coef: Tensor
    intercept: Tensor
    gradient: Tensor
    rows: Tensor
    iterations: Tensor
    converged: Tensor
    reason: tuple[str, ...]


def solve(problems: Problems, *, tol: float = TOL, max_iter: int = MOST) -> Solution:
    """Solve problems that share their films; see the module.

    Raises:
        ConfigError: a regularization that is not positive.
        DataError: features that are not finite, weights that are not or are negative.
    """
    _must_be_sound(problems.x, problems.weights, problems.c)
    space = Space.of(problems.x, torch.ones_like(problems.x[:, 0]))
    parts = [
        _fit(problems.x, space, problems.batch(chosen), tol=tol, most=max_iter)
        for chosen in _parts(problems.c, problems.together)
    ]
    return _join(parts, exclusive=problems.exclusive)


def solve_small(
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    c: float | Tensor = 1.0,
    tol: float = TOL,
    max_iter: int = MOST,
) -> Solution:
    """Solve problems with a few films of their own; see the module.

    Args:
        x: Films ``(P, n, D)``.
        y: Targets ``(P, n)``, or ``(P, n, K)`` for exclusive classes; NaN is not in.
        mask: Weights ``(P, n)``, 0 for padding.
        c: Inverse regularization, one or ``(P,)``.

    Raises:
        ConfigError: a regularization that is not positive.
        DataError: features that are not finite, weights that are not or are negative.
    """
    c = torch.as_tensor(c, dtype=torch.float64, device=x.device).expand(len(x))
    exclusive = y.ndim == 3
    targets = (y.mT if exclusive else y.unsqueeze(1)).double()
    _must_be_sound(x, mask, c)
    parts = []
    for chosen in _parts(x, BLOCK // x.shape[1:].numel()):
        films = x[chosen].double()
        batch = Batch.make(targets[chosen], mask[chosen].double(), c[chosen])
        space = Space.of(films, (batch.w[:, 0] > 0).double())
        parts.append(_fit(films, space, batch, tol=tol, most=max_iter))
    return _join(parts, exclusive=exclusive, dtype=x.dtype)


def _parts(problems: Tensor, together: int) -> tuple[Tensor, ...]:
    """Return numbers of problems, so many at a time."""
    return torch.split(torch.arange(len(problems), device=problems.device), max(together, 1))


def _must_be_sound(x: Tensor, weights: Tensor, c: Tensor) -> None:
    if not bool((c > 0).all()):
        raise ConfigError(f"C = {float(c.min())!r}: regularizations must be above 0")
    if not bool(x.isfinite().all()):
        raise DataError("features to classify are not finite; look at the embeddings")
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise DataError("weights of films must be finite and not negative")


def _fit(x: Tensor, space: Space, batch: Batch, *, tol: float, most: int) -> Solution:
    reasons = _reasons(batch)
    good = torch.tensor([not reason for reason in reasons], device=x.device)
    theta, taken = _base(space, batch), torch.zeros_like(batch.rows, dtype=torch.int64)
    theta[~good] = torch.nan
    if bool(good.any()):
        few = batch.among(good)
        limit = SLACK * tol * few.rows
        theta[good], taken[good] = minimize(space.among(good), few, theta[good], limit, most=most)
    coef, intercept = space.features(theta)
    if intercept.shape[1] > 1:  # softmax does not see a shift
        finite = intercept.isfinite()
        shift = torch.where(finite, intercept, 0).sum(1) / finite.sum(1)
        intercept = intercept - shift[:, None]
    gradient = _largest(x, batch, coef, intercept)
    return Solution(
        coef=coef,
        intercept=intercept,
        gradient=gradient,
        rows=batch.rows,
        iterations=taken,
        converged=gradient <= tol * batch.rows,
        reason=reasons,
    )


def _largest(x: Tensor, batch: Batch, coef: Tensor, intercept: Tensor) -> Tensor:
    """Return the gradient's largest absolute entry, by the features themselves."""
    residual = batch.residual(coef @ x.mT + intercept[..., None])
    slope = (residual @ x + coef * batch.decay).abs().amax((1, 2))
    return torch.maximum(slope, residual.sum(-1).abs().amax(1))


def _base(space: Space, batch: Batch) -> Tensor:
    """Return parameters that give each film the classes' shares."""
    shares = batch.shares()
    theta = torch.zeros(*shares.shape, space.z.shape[-1], dtype=shares.dtype, device=shares.device)
    theta[..., -1] = shares.logit() if shares.shape[1] == 1 else shares.log()
    return theta


def _reasons(batch: Batch) -> tuple[str, ...]:
    shares = batch.shares()
    classes = torch.cat([shares, 1 - shares], 1) if shares.shape[1] == 1 else shares
    several = (classes > 0).sum(1) > 1
    empty = batch.rows == 0
    return tuple(
        NO_ROWS if none else "" if enough else ONE_CLASS
        for none, enough in zip(empty.tolist(), several.tolist(), strict=True)
    )


def _join(parts: list[Solution], *, exclusive: bool, dtype: torch.dtype | None = None) -> Solution:
    whole = {
        each.name: torch.cat([getattr(part, each.name) for part in parts])
        for each in fields(Solution)
        if each.name != "reason"
    }
    for name in ("coef", "intercept"):
        whole[name] = (whole[name] if exclusive else whole[name].squeeze(1)).to(dtype)
    return Solution(**whole, reason=tuple(why for part in parts for why in part.reason))

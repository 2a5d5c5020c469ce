"""L-BFGS for many logistic regressions at once, each with its own line search and its own end.

Shapes: P problems, K classes (1 where binary), N films, R rotated features.  Parameters are
``(P, K, R+1)``, the intercept last.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad

MEMORY = 20  # steps that L-BFGS remembers
TRIES = 20  # points along one direction
# The slope that a line search leaves, as a share of the one it began with.
FLAT = 0.5


@dataclass(frozen=True, kw_only=True)
class Space:
    """Films rotated to where their Gram matrix is diagonal, and the way back.

    Attributes:
        z: Films ``([P,] N, R+1)``, the last column 1, or 0 where a film is not in.
        basis: ``([P,] R+1, D+1)``: turns a gradient into that of the features and intercept.
        power: ``([P,] R+1)``, each column's sum of squares.
    """

    z: Tensor
    basis: Tensor
    power: Tensor

    @classmethod
    def of(cls, x: Tensor, mask: Tensor) -> Space:
        """Rotate films ``([P,] N, D)``, of which ``mask`` ``([P,] N)`` are in.

        With fewer films than features the space is their span: the penalty keeps the solution in
        it.  It is found in float64, because its small eigenvalues count.
        """
        ones = mask.unsqueeze(-1).to(x.dtype)
        mean = (x * ones).sum(-2, keepdim=True) / ones.sum(-2, keepdim=True).clamp(min=1)
        centered = (x - mean) * ones
        rotate = _span if x.shape[-2] < x.shape[-1] else _turn
        z, vectors = rotate(centered)
        z = torch.cat([z, ones], -1)
        bottom = torch.cat([mean, torch.ones_like(mean[..., :1])], -1)
        basis = torch.cat([pad(vectors, (0, 1)), bottom], -2)
        return cls(z=z, basis=basis, power=z.square().sum(-2))

    def to(self, dtype: torch.dtype) -> Space:
        """Return it in another type."""
        return Space(**{each.name: getattr(self, each.name).to(dtype) for each in fields(self)})

    def among(self, kept: Tensor) -> Space:
        """Return the space of some problems; the same where they share one."""
        if self.z.ndim == 2:
            return self
        return Space(**{each.name: getattr(self, each.name)[kept] for each in fields(self)})

    def features(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients ``(P, K, D)`` and intercepts ``(P, K)`` of parameters."""
        coef = theta[..., :-1] @ self.basis[..., :-1, :-1]
        shift = coef @ self.basis[..., -1:, :-1].mT
        return coef, theta[..., -1] - shift[..., 0]

    def parameters(self, coef: Tensor, intercept: Tensor) -> Tensor:
        """Return the parameters of coefficients that lie in the space."""
        shift = coef @ self.basis[..., -1:, :-1].mT
        return torch.cat([coef @ self.basis[..., :-1, :-1].mT, intercept[..., None] + shift], -1)


def _turn(centered: Tensor) -> tuple[Tensor, Tensor]:
    # The rotation only preconditions, so that a part of the films is enough to find it.
    some = centered[..., :: max(centered.shape[-2] // (4 * centered.shape[-1]), 1), :]
    vectors = torch.linalg.eigh(some.mT @ some).eigenvectors
    return centered @ vectors, vectors.mT


def _span(centered: Tensor) -> tuple[Tensor, Tensor]:
    wide = centered.double()
    values, vectors = torch.linalg.eigh(wide @ wide.mT)
    seen = values > values[..., -1:] * 1e-12
    root = torch.where(seen, values, 0).sqrt().unsqueeze(-2)
    inverse = torch.where(root > 0, 1 / root, 0)
    z, back = vectors * root, (vectors * inverse).mT @ wide
    return z.to(centered.dtype), back.to(centered.dtype)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Targets ``y`` ``(P, K, N)``, weights ``w`` ``(P, 1, N)`` and ``decay`` ``(P, 1, 1)``.

    The objective of each is ``sum(w * loss) + decay * ||coef||^2 / 2``.
    """

    y: Tensor
    w: Tensor
    decay: Tensor

    @classmethod
    def make(cls, y: Tensor, w: Tensor, c: Tensor) -> Batch:
        """Build one of targets with NaN, weights ``(P, N)`` and ``c`` ``(P,)``."""
        known = ~y.isnan().any(1, keepdim=True)
        return cls(y=y.nan_to_num(0.0), w=w.unsqueeze(1) * known, decay=1 / c[:, None, None])

    def among(self, kept: Tensor) -> Batch:
        """Return some of the problems."""
        return Batch(**{each.name: getattr(self, each.name)[kept] for each in fields(self)})

    @property
    def rows(self) -> Tensor:
        """Sum ``(P,)`` of the weights."""
        return self.w.sum((1, 2))

    def shares(self) -> Tensor:
        """Return each class's share ``(P, K)`` of the weights."""
        return (self.w * self.y).sum(-1) / self.rows[:, None]

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return ``(P, K, N)`` from scores."""
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)

    def residual(self, scores: Tensor) -> Tensor:
        """Return the gradient ``(P, K, N)`` by the scores."""
        return self.probabilities(scores).sub_(self.y).mul_(self.w)

    def gradient(self, theta: Tensor, residual: Tensor, z: Tensor) -> Tensor:
        """Return the gradient ``(P, K, R+1)`` by parameters or, with films and 1, coefficients."""
        return residual @ z + self.penalized(theta)

    def penalized(self, theta: Tensor) -> Tensor:
        """Return the penalty's gradient, 0 at the intercept."""
        return pad(theta[..., :-1] * self.decay, (0, 1))


def minimize(
    space: Space, batch: Batch, theta: Tensor, limit: Tensor, *, most: int
) -> tuple[Tensor, Tensor]:
    """Bring each problem's largest absolute entry of the gradient to its ``limit`` ``(P,)``.

    Returns:
        Parameters, and the iterations ``(P,)`` that each took until it left; one that took
        ``most`` may be short of its limit.
    """
    result, taken = theta.clone(), torch.zeros_like(limit, dtype=torch.int64)
    live = torch.arange(len(limit), device=limit.device)
    scores = theta @ space.z.mT
    gradient = batch.gradient(theta, batch.residual(scores), space.z)
    memory = _Memory(diagonal=_diagonal(space, batch), steps=[], changes=[])
    for iteration in range(most + 1):
        short = (gradient @ space.basis).abs().amax((1, 2)) > limit
        if iteration == most or not bool(short.any()):
            result[live], taken[live] = theta, iteration
            break
        if not bool(short.all()):
            result[live[~short]], taken[live[~short]] = theta[~short], iteration
            live, limit, theta, scores = live[short], limit[short], theta[short], scores[short]
            gradient, memory = gradient[short], memory.among(short)
            space, batch = space.among(short), batch.among(short)
        direction = memory.direction(gradient)
        length, scores, residual = _search(space, batch, theta, scores, gradient, direction)
        step = length[:, None, None] * direction
        theta = theta + step
        before, gradient = gradient, batch.gradient(theta, residual, space.z)
        memory = memory.after(step, gradient - before)
    return result, taken


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """The last steps and what each did to the gradient, over a diagonal of the Hessian."""

    diagonal: Tensor
    steps: list[Tensor]
    changes: list[Tensor]

    def among(self, kept: Tensor) -> _Memory:
        return _Memory(
            diagonal=self.diagonal[kept],
            steps=[each[kept] for each in self.steps],
            changes=[each[kept] for each in self.changes],
        )

    def after(self, step: Tensor, change: Tensor) -> _Memory:
        return _Memory(
            diagonal=self.diagonal,
            steps=[*self.steps, step][-MEMORY:],
            changes=[*self.changes, change][-MEMORY:],
        )

    def direction(self, gradient: Tensor) -> Tensor:
        # Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4, for each problem.
        wanted, shares = gradient, []
        pairs = list(zip(self.steps, self.changes, strict=True))
        weights = [_inverse(_dot(step, change)) for step, change in pairs]
        for (step, change), weight in zip(reversed(pairs), reversed(weights), strict=True):
            share = weight * _dot(step, wanted)
            wanted = wanted - share * change
            shares.append(share)
        wanted = wanted / self.diagonal
        for (step, change), weight, share in zip(pairs, weights, reversed(shares), strict=True):
            wanted = wanted + (share - weight * _dot(change, wanted)) * step
        return -wanted


def _diagonal(space: Space, batch: Batch) -> Tensor:
    """Return the Hessian's diagonal where each film has the classes' shares for chances."""
    shares = batch.shares()
    curvature = (shares * (1 - shares) * batch.rows[:, None])[..., None]
    diagonal = curvature / space.power[..., -1:, None] * space.power.unsqueeze(-2)
    diagonal[..., :-1] += batch.decay
    # A class without films has no curvature; neither has it a gradient.
    return diagonal.clamp_min_(1e-12)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2), keepdim=True)


def _inverse(products: Tensor) -> Tensor:
    # A step that rounding has made useless counts for nothing.
    return torch.where(products > 0, 1 / products, 0)


def _search(
    space: Space, batch: Batch, theta: Tensor, scores: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Find where the objective along a direction is nearly flat: it is convex.

    Along a line scores are linear, so that a trial costs no product with the films.

    Returns:
        Lengths ``(P,)``, and the scores and residuals there.
    """
    moved = direction @ space.z.mT
    tied = _dot(batch.penalized(theta), direction)[:, 0, 0]
    bend = _dot(batch.penalized(direction), direction)[:, 0, 0]
    begun = _dot(gradient, direction)[:, 0, 0]
    low, high = torch.zeros_like(begun), torch.full_like(begun, torch.inf)
    low_slope, high_slope = begun, torch.full_like(begun, torch.inf)
    ahead = torch.ones_like(begun)
    for _ in range(TRIES):
        length = ahead
        there = torch.addcmul(scores, moved, length[:, None, None])
        residual = batch.residual(there)
        slope = (residual * moved).sum((1, 2)) + tied + length * bend
        rough = slope.abs() > FLAT * begun.abs()
        if not bool(rough.any()):
            break
        up = slope > 0
        high, high_slope = torch.where(up, length, high), torch.where(up, slope, high_slope)
        low, low_slope = torch.where(up, low, length), torch.where(up, low_slope, slope)
        inside = low + (high - low) * (low_slope / (low_slope - high_slope)).clamp(0.1, 0.9)
        ahead = torch.where(rough, torch.where(high.isinf(), 4 * length, inside), length)
    return length, there, residual

"""What pixels alone give: logistic regression, so that a table says what a model adds."""

from __future__ import annotations

import numpy as np

from ark_framework.errors import MachineError
from ark_framework.metrics import auroc, known, macro
from ark_framework.specs import LabelSchema

SIDE = 32
COMPONENTS = 128
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def pixel_logistic(
    train: np.ndarray,
    train_targets: np.ndarray,
    val: np.ndarray,
    val_targets: np.ndarray,
    test: np.ndarray,
    *,
    schema: LabelSchema,
) -> np.ndarray:
    """Fit one logistic regression per label on films averaged down to 32 x 32.

    Features are standardized principal components of the training films; C is chosen per label
    on validation.  A label without both classes in training scores 0 everywhere.

    Args:
        train: ``(N, C, S, S)`` uint8; ``val`` and ``test`` likewise.
        train_targets: ``(N, L)`` with 1, 0, NaN and -1; ``val_targets`` likewise.
        schema: Whose labels they are.

    Returns:
        Decision values for the test films, ``(n, L)``.

    Raises:
        MachineError: scikit-learn is not installed.
    """
    try:
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MachineError("scikit-learn is not installed: pip install scikit-learn") from error
    parts = [_pixels(films) for films in (train, val, test)]
    pca = PCA(min(COMPONENTS, *parts[0].shape), whiten=False, random_state=0).fit(parts[0])
    fit, check, ask = (pca.transform(part) for part in parts)
    spread = fit.std(axis=0).max()
    fit, check, ask = fit / spread, check / spread, ask / spread
    scores = np.zeros((len(test), len(schema.labels)))
    for label in range(len(schema.labels)):
        rows = known(train_targets[:, [label]])[:, 0]
        positive = train_targets[rows, label] == 1
        if positive.all() or not positive.any():
            continue
        best = -1.0
        for strength in GRID:
            model = LogisticRegression(C=strength * 100, max_iter=500)
            model.fit(fit[rows], positive)
            value, _ = macro(
                auroc(model.decision_function(check)[:, None], val_targets[:, [label]])
            )
            if value > best or best < 0:
                best, scores[:, label] = value, model.decision_function(ask)
    return scores


def _pixels(films: np.ndarray) -> np.ndarray:
    count, _, side, _ = films.shape
    step = max(1, side // SIDE)
    cut = films[:, :, : side // step * step, : side // step * step].astype(np.float32)
    blocks = cut.reshape(count, films.shape[1], side // step, step, side // step, step)
    flat = blocks.mean(axis=(3, 5)).reshape(count, -1)
    return np.asarray(flat / 255.0)

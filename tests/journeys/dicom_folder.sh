# A model in hand, one of one's own and one that others published: to embeddings and predictions
# for a folder of DICOM.
# Given: scans/ (DICOM, several folders deep), published.pth.tar, models/mine (from ark export).
# Followed: docs/how-to/use-a-released-model.md, docs/how-to/predict.md.

ark import published.pth.tar --out models/published

ark predict models/published scans/ --tasks rsna,shenzhen \
    --score "tb=vindr:Tuberculosis+shenzhen:TB" --out published.csv
ark embed models/published scans/ --out published.npz

ark predict models/mine scans/ --out mine.csv
ark embed models/mine scans/ --features pooled --out mine-vectors.csv

python - <<'END'
from pathlib import Path

import ark_framework

model = ark_framework.load("models/published")
films = sorted(Path("scans").rglob("*.dcm"))
assert model.embed(films).shape == (len(films), 1376)
assert set(model.predict(films)) >= {"mimic", "chexpert", "chestxray14", "rsna"}
END

# Two models on the NIH test films: which is better, by how much, with intervals, and whom each fails.
# Given: $NIH, a folder in the official layout.
# Followed: docs/how-to/transfer.md, docs/how-to/fairness.md, docs/how-to/report.md.

ark data link chestxray14 "$NIH"
ark data verify --plugins ark-chestxray14

ark train --plugins ark-chestxray14 --set cycles=1 --set store.size=64 --set views.size=56 --out runs/one
ark train --plugins ark-chestxray14 --set cycles=1 --set store.size=64 --set views.size=56 \
    --set optim.lr=0.0003 --out runs/other

ark probe runs/one runs/other --plugins ark-chestxray14 --out probes
ark fairness runs/one runs/other --plugins ark-chestxray14 --by sex --folds 3 \
    --set replicates=100 --out audits
ark report runs/one runs/other probes audits --out report.html

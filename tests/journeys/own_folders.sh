# Two clinics, a folder of films and a CSV each, in their own words: to a model and its report.
# Given: north-clinic/{radiology.csv,films/} and south-clinic/{reads.csv,xrays/}.
# Followed: docs/tutorial/first-model.md, docs/how-to/folder-with-csv.md, docs/how-to/report.md.

cat > clinics.yaml <<'END'
plugins: [ark-table]
data:
  north-clinic:
    like: table
    root: north-clinic
    csv: radiology.csv
    image: filename
    patient: mrn
    sex: gender
    age: age
    labels: [cardiomegaly, effusion]
    test_fraction: 0.3
  south-clinic:
    like: table
    root: south-clinic
    csv: reads.csv
    image: image_path
    patient: subject
    split: set
    kind: multiclass
    label_column: reading
    labels: [clear, effusion, other]
END

ark data verify -c clinics.yaml
ark data preview -c clinics.yaml --limit 6 --out preview.png
ark train -c clinics.yaml --set cycles=2 --set store.size=48 --set views.size=40 --out runs/first
ark report runs/first
ark export runs/first --out models/first

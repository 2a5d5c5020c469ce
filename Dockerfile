# Ark with its plugins, for machines with NVIDIA GPUs.  No data, no weights and no store is inside.
#
#   docker build -t ark .
#   docker run --gpus all --shm-size=8g --user $(id -u) -v /data:/data:ro -v /fast/stores:/stores \
#     -v $PWD:/work ark train --plugins ark-rsna --data rsna=/data/rsna
#
# The base brings Python, torch, torchvision and CUDA; take one whose CUDA the machine's driver knows
# (`ark doctor`), with Python 3.11 and torch 2.11 or newer.
ARG BASE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-runtime
FROM ${BASE}

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY ark_framework ark_framework
COPY plugins plugins
# The base's torch is kept: a base that is too old fails here, and no second torch is fetched.
RUN python -c "import torch, torchvision; print(f'torch=={torch.__version__}\ntorchvision=={torchvision.__version__}')" \
      > /tmp/keep.txt \
    && python -m pip install --no-cache-dir --constraint /tmp/keep.txt \
      ".[dicom,saliency,segmentation]" ./plugins/* \
    && rm /tmp/keep.txt \
    && useradd --create-home --uid 10001 ark \
    && mkdir /work /stores \
    && chown ark:ark /work /stores

ENV ARK_STORE=/stores \
    ARK_CONFIG_HOME=/work/.ark
USER 10001
WORKDIR /work
ENTRYPOINT ["ark"]
CMD ["--help"]

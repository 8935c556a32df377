# Targets: cpu, which is the default, gpu and distill: `docker build --target gpu --tag bistil-serve:gpu .`
# All dependencies are pinned, with their hashes, in requirements/*.lock, which `make lock` writes.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# onnxruntime-gpu 1.31 is built for CUDA 13.0 and cuDNN 9
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04

# What all targets need while they are built: the wheel, the students, and the tool that writes an SBOM.
FROM ${PYTHON_IMAGE} AS wheel
COPY requirements/build.lock /requirements.lock
# The secret is optional: the certificate authority of a proxy. Builds without one need nothing.
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --quiet --require-hashes -r /requirements.lock
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY distill distill
RUN /opt/tools/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel .
COPY model_store /model_store
# teachers are not served
RUN rm -rf /model_store/mmt-*

FROM ${PYTHON_IMAGE} AS cpu-build
COPY requirements/serve.lock /requirements.lock
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --quiet --require-hashes -r /requirements.lock
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip --python /opt/venv/bin/python install --quiet --no-deps --no-index /wheel/*.whl
RUN --mount=type=bind,from=wheel,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/venv/sbom.cdx.json /opt/venv/bin/python

FROM ${PYTHON_IMAGE} AS distill-build
COPY requirements/distill.lock /requirements.lock
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --quiet --require-hashes -r /requirements.lock
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip --python /opt/venv/bin/python install --quiet --no-deps --no-index /wheel/*.whl
RUN --mount=type=bind,from=wheel,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/venv/sbom.cdx.json /opt/venv/bin/python

# The wheel of onnxruntime-gpu takes the place of the one for CPUs, so that dependencies are those of the lock alone.
FROM ${CUDA_IMAGE} AS gpu-build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv
COPY requirements/gpu.lock /requirements.lock
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --quiet --require-hashes --no-deps -r /requirements.lock
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    python3 -m pip --python /opt/venv/bin/python install --quiet --no-deps --no-index /wheel/*.whl
COPY requirements/build.lock /build.lock
RUN --mount=type=secret,id=ca,required=false --mount=type=cache,target=/root/.cache/pip \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --quiet --require-hashes -r /build.lock \
    && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-file /opt/venv/sbom.cdx.json /opt/venv/bin/python

# Torch comes with CUDA and runs without it too. Mount /srv/data, and folders to write at /srv/runs and for --store.
FROM ${PYTHON_IMAGE} AS distill
ARG VERSION=unknown REVISION=unknown
LABEL org.opencontainers.image.title="bistil-distill" \
    org.opencontainers.image.description="Distils a multilingual encoder into small bilingual students for one language." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 bistil \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp bistil
COPY --from=distill-build /opt/venv /opt/venv
COPY model_store/mmt-mini /srv/model_store/mmt-mini
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface
USER 10001:10001
ENTRYPOINT ["python", "-m", "distill"]

FROM ${CUDA_IMAGE} AS gpu
ARG VERSION=unknown REVISION=unknown
LABEL org.opencontainers.image.title="bistil-serve-gpu" \
    org.opencontainers.image.description="Serves small distilled encoders over HTTP, on an NVIDIA GPU." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 bistil \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent bistil
COPY --from=gpu-build /opt/venv /opt/venv
COPY --from=wheel /model_store /srv/model_store
WORKDIR /srv
# the cache of a remote store is in /tmp, which a container with a read-only root mounts
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 \
    BISTIL_STORE=/srv/model_store BISTIL_CACHE=/tmp/bistil BISTIL_HOST=0.0.0.0 BISTIL_PORT=8000 BISTIL_DEVICE=cuda
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['BISTIL_PORT']}/readyz\", timeout=2)"]
ENTRYPOINT ["bistil-serve"]

FROM ${PYTHON_IMAGE} AS cpu
ARG VERSION=unknown REVISION=unknown
LABEL org.opencontainers.image.title="bistil-serve" \
    org.opencontainers.image.description="Serves small distilled encoders over HTTP, on a CPU." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN groupadd --gid 10001 bistil \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent bistil
COPY --from=cpu-build /opt/venv /opt/venv
COPY --from=wheel /model_store /srv/model_store
WORKDIR /srv
# the cache of a remote store is in /tmp, which a container with a read-only root mounts
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 ORT_DISABLE_TELEMETRY=1 HF_HUB_OFFLINE=1 \
    BISTIL_STORE=/srv/model_store BISTIL_CACHE=/tmp/bistil BISTIL_HOST=0.0.0.0 BISTIL_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ['BISTIL_PORT']}/readyz\", timeout=2)"]
ENTRYPOINT ["bistil-serve"]

# CPU image: the wheel and the model store, nothing that trains. GPU targets will follow this stage.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY distill distill
# An optional secret: a proxy's certificate authority. Builds without it need nothing.
RUN --mount=type=secret,id=ca,required=false \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python -m venv /opt/venv \
    && python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
    && /opt/venv/bin/pip install --no-cache-dir /wheel/*.whl

FROM python:3.11-slim AS cpu
RUN groupadd --gid 10001 bistil && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent bistil
COPY --from=build /opt/venv /opt/venv
COPY model_store /srv/model_store
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    BISTIL_STORE=/srv/model_store BISTIL_HOST=0.0.0.0 BISTIL_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['BISTIL_PORT']}/readyz\", timeout=2)"]
ENTRYPOINT ["bistil-serve"]

# syntax=docker/dockerfile:1.7
# Two images from one file:
#   docker build --target cpu  --build-arg TORCH_INDEX=https://… -t interloom:0.1.0-cpu .
#   docker build --target cuda -t interloom:0.1.0-cuda .
# TORCH_INDEX is an index with a small CPU build of PyTorch; the default build brings CUDA's libraries along,
# and the driver is the node's. Everything is installed where compilers may be, and copied to where they are not.

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential git \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# The requirements first, so that a change of the code leaves this layer alone.
FROM build AS installed
ARG TORCH_INDEX=""
# Such as vllm, for grpo_critic.use_vllm: it is in no constraint, as it was not resolved with the rest.
ARG EXTRA_PACKAGES=""
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*p['dependencies'], *p['optional-dependencies']['kubernetes'], sep='\n')" > requirements.txt \
    && pip install ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
        -c constraints.txt -r requirements.txt ${EXTRA_PACKAGES}
COPY README.md ./
COPY src src
COPY flows flows
RUN pip install --no-deps -c constraints.txt . \
    && pip uninstall --yes pip

# The shipped miniatures, out of the repository's own remote.
FROM installed AS miniatures
WORKDIR /app
COPY .dvc/config .dvc/config
COPY .dvc-remote .dvc-remote
COPY data.dvc ./
RUN dvc config core.no_scm true \
    && dvc config cache.dir /tmp/cache \
    && dvc pull --quiet data.dvc

# What runs: Python, git (DVC and the lineage of runs ask it), no compiler, no pip, no root. Nothing is
# written but to what is mounted: /tmp, /app/.interloom, /project.
FROM python:3.11.13-slim-bookworm AS runtime
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && python -m pip uninstall --yes pip setuptools wheel \
    && groupadd --gid 10001 interloom \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin interloom
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*
WORKDIR /app
COPY params.yaml dvc.yaml ./
COPY profiles profiles
COPY --from=miniatures /app/data data
RUN mkdir .interloom && chown 10001:10001 .interloom
CMD ["interloom", "--help"]

FROM runtime AS cpu
COPY --from=installed /opt/venv /opt/venv
USER 10001:10001

FROM runtime AS cuda
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=installed /opt/venv /opt/venv
USER 10001:10001

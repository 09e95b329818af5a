# Three images. `api` needs no torch: it serves the api, the io worker, the dispatcher, the migrations and the
# `linewatch` command. `worker` has torch with CUDA, for scoring on GPUs; `worker-cpu` has torch for processors.
#
#   docker build --target api --tag linewatch/api .
#
# Needs BuildKit, the default since Docker 23. Two optional secrets, which no image keeps, say where packages come from:
# `pip`, a pip.conf with the index of your company, and `ca`, its certificate authorities
# (--secret id=pip,src=pip.conf --secret id=ca,src=ca.pem, with `cert = /run/secrets/ca` in pip.conf).
#
# Health checks are in docker-compose.yml and in the chart: they depend on the process, and an image runs several kinds.
#
# What changes often comes last: new code installs no package again, and another version of a package no torch.

# Any image with Python 3.11 or newer and its venv. A release pins the digest: --build-arg PYTHON_IMAGE=python@sha256:…
ARG PYTHON_IMAGE=python:3.12.13-slim-trixie

FROM ${PYTHON_IMAGE} AS base
# The link to the code has no version of Python in its name.
ENV PATH=/opt/linewatch/bin:$PATH \
    PYTHONPATH=/opt/linewatch/code \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A new volume takes the owner of the folder that it covers, so the numbers must stay what they are.
RUN groupadd --gid 10001 linewatch \
    && useradd --uid 10001 --gid linewatch --home-dir /tmp --no-create-home --shell /usr/sbin/nologin linewatch \
    && install --directory --owner linewatch --group linewatch --mode 0750 \
       /var/lib/linewatch /var/lib/linewatch/store /var/lib/linewatch/scratch \
    && python3 -m venv /opt/linewatch \
    && ln -s "$(/opt/linewatch/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/linewatch/server/lib" \
       /opt/linewatch/code
WORKDIR /opt/linewatch
STOPSIGNAL SIGTERM

FROM base AS wheels
COPY . source
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip wheel --no-deps --wheel-dir /wheels ./source/linewatch ./source

# What the code needs, and two empty packages in the place of the code.
FROM base AS requirements
WORKDIR /requirements
COPY pyproject.toml requirements.lock ./
COPY linewatch/pyproject.toml linewatch/LICENSE linewatch/
RUN touch README.md linewatch/README.md linewatch/__init__.py \
    && grep --extended-regexp '^(torch==|triton|cuda-|nvidia-[^m])' requirements.lock > torch.lock

# The tool that lists an image's packages; it stays out of the images.
FROM base AS sbom
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=bind,from=requirements,source=/requirements/requirements.lock,target=/requirements.lock \
    python3 -m venv /opt/sbom && /opt/sbom/bin/pip install --constraint /requirements.lock cyclonedx-bom==7.5.0

FROM base AS api-packages
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements,rw \
    pip install --constraint /requirements/requirements.lock /requirements/linewatch "/requirements[backup,mqtt,tracing]"

# What both workers run.
FROM base AS scoring
# glibc would return the memory of each decoded image to the system, and wait for fresh pages with the next one.
ENV MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864
COPY --from=requirements /requirements/torch.lock ./
CMD ["celery", "--quiet", "-A", "worker.scoring", "worker", "--queues", "sync,live,bulk", "--pool", "threads", \
     "--concurrency", "2", "--hostname", "scoring@%h", "--loglevel", "WARNING", \
     "--without-gossip", "--without-mingle", "--without-heartbeat"]

FROM scoring AS torch-cuda
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip install --constraint torch.lock torch

# The usual package index has torch for CUDA only, with libraries of several gigabytes; it computes on processors too.
# A much smaller image needs the index of PyTorch's CPU wheels: --build-arg PIP_EXTRA_INDEX_URL=…
FROM scoring AS torch-cpu
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    pip install --constraint torch.lock torch

FROM torch-cuda AS worker-packages
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements,rw \
    pip install --constraint /requirements/requirements.lock /requirements/linewatch "/requirements[mqtt,tracing,worker]"

FROM torch-cpu AS worker-cpu-packages
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca \
    --mount=type=bind,from=requirements,source=/requirements,target=/requirements,rw \
    pip install --constraint /requirements/requirements.lock /requirements/linewatch "/requirements[mqtt,tracing,worker]"

FROM api-packages AS api
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,from=sbom,source=/opt/sbom,target=/opt/sbom \
    pip install --no-deps --force-reinstall /wheels/*.whl \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file sbom.cdx.json bin/python
USER 10001:10001
CMD ["python", "-m", "api"]

FROM worker-packages AS worker
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,from=sbom,source=/opt/sbom,target=/opt/sbom \
    pip install --no-deps --force-reinstall /wheels/*.whl \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file sbom.cdx.json bin/python
USER 10001:10001

FROM worker-cpu-packages AS worker-cpu
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    --mount=type=bind,from=sbom,source=/opt/sbom,target=/opt/sbom \
    pip install --no-deps --force-reinstall /wheels/*.whl \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible --output-file sbom.cdx.json bin/python
USER 10001:10001

# Two images. `api` needs no torch: it serves the api, the io worker, the dispatcher, the migrations and the `linewatch`
# command. `worker` is the same with torch, for scoring.
#
# The package index gives CUDA wheels of torch, several gigabytes, which compute on a processor too. A machine without a
# GPU gets a much smaller image with --build-arg PIP_EXTRA_INDEX_URL=… (the index of PyTorch's CPU wheels; no passwords
# in it, the image's history keeps it).
#
# Builds with and without BuildKit. What changes often comes last: new code installs no package again.

FROM python:3.12-slim AS base
ENV PATH=/opt/linewatch/bin:$PATH \
    PYTHONPATH=/opt/linewatch/lib/python3.12/site-packages/linewatch/server/lib \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A new volume takes the owner of the folder that it covers, so the numbers must stay what they are.
RUN groupadd --gid 10001 linewatch \
    && useradd --uid 10001 --gid linewatch --home-dir /tmp --no-create-home --shell /usr/sbin/nologin linewatch \
    && install --directory --owner linewatch --group linewatch --mode 0750 /var/lib/linewatch /var/lib/linewatch/store \
    && python3 -m venv /opt/linewatch
WORKDIR /opt/linewatch
STOPSIGNAL SIGTERM

FROM base AS wheel
COPY . source
RUN pip wheel --no-deps --wheel-dir dist ./source/linewatch ./source

# The code is not here yet, so these install what it needs and two empty packages.
FROM base AS api-packages
COPY pyproject.toml requirements.lock ./
COPY linewatch/pyproject.toml linewatch/LICENSE linewatch/
RUN touch README.md linewatch/README.md linewatch/__init__.py \
    && pip install --constraint requirements.lock ./linewatch ".[mqtt,tracing]"

FROM api-packages AS api
COPY --from=wheel /opt/linewatch/dist dist
RUN pip install --no-deps --force-reinstall dist/*.whl
USER 10001:10001
CMD ["python", "-m", "api"]

FROM api-packages AS worker-packages
ARG PIP_EXTRA_INDEX_URL
RUN pip install --constraint requirements.lock ./linewatch ".[worker]"

FROM worker-packages AS worker
# glibc would return the memory of each decoded image to the system, and wait for fresh pages with the next one.
ENV MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_TOP_PAD_=67108864
COPY --from=wheel /opt/linewatch/dist dist
RUN pip install --no-deps --force-reinstall dist/*.whl
USER 10001:10001
CMD ["celery", "--quiet", "-A", "worker.scoring", "worker", "--queues", "sync,live,bulk", "--pool", "threads", \
     "--concurrency", "2", "--hostname", "scoring@%h", "--loglevel", "WARNING", \
     "--without-gossip", "--without-mingle", "--without-heartbeat"]

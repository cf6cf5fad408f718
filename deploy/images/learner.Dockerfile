# Learns. For GPUs: pip install '.[learner,trace]' on a CUDA image, without libiomp5 in LD_PRELOAD.
#   docker build -f deploy/images/learner.Dockerfile -t iterpo-learner .
FROM python:3.11.9-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/iterpo && /opt/iterpo/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps -r requirements/cpu.lock && /opt/iterpo/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11.9-slim-bookworm
COPY --from=build /opt/iterpo /opt/iterpo
RUN apt-get update && apt-get install -y --no-install-recommends libtcmalloc-minimal4 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --create-home --home-dir /data iterpo
USER 10001
WORKDIR /data
VOLUME /data
ENV PATH=/opt/iterpo/bin:$PATH LD_PRELOAD=libtcmalloc_minimal.so.4:/opt/iterpo/lib/libiomp5.so
EXPOSE 50053 9103
# The configuration is mounted at /etc/iterpo/iterpo.toml; docs/operations.md has one.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["iterpo", "health", "learner", "--config", "/etc/iterpo/iterpo.toml"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "services.learner", "--config", "/etc/iterpo/iterpo.toml"]

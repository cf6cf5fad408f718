# Labels: people, verifiers, judges. Without torch; reward models need the learner's packages.
#   docker build -f deploy/images/labeling.Dockerfile -t iterpo-labeling .
FROM python:3.11.9-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/iterpo && /opt/iterpo/bin/pip install --no-cache-dir --disable-pip-version-check -c requirements/cpu.lock '.[postgresql,trace]'

FROM python:3.11.9-slim-bookworm
COPY --from=build /opt/iterpo /opt/iterpo
RUN useradd --uid 10001 --create-home --home-dir /data iterpo
USER 10001
WORKDIR /data
VOLUME /data
ENV PATH=/opt/iterpo/bin:$PATH
EXPOSE 50052 9202 9102
# The configuration is mounted at /etc/iterpo/iterpo.toml; docs/operations.md has one.
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s CMD ["iterpo", "health", "labeling", "--config", "/etc/iterpo/iterpo.toml"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "services.labeling", "--config", "/etc/iterpo/iterpo.toml"]

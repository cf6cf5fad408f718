# For KubeRay: every service in one image, which inference's is, and what Ray needs to take jobs, wget for its probes included.
#   docker build -f deploy/images/ray.Dockerfile --build-arg BASE=registry.example/iterpo-inference:0.1.0 -t iterpo-ray .
ARG BASE=iterpo-inference:0.1.0
FROM ${BASE}
USER root
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
COPY deploy/images/ray.lock /tmp/ray.lock
RUN /opt/iterpo/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps -r /tmp/ray.lock
USER 10001
# KubeRay says what runs.
ENTRYPOINT []

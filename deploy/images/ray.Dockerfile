# For KubeRay: every service in one image, which inference's is, and what Ray needs to take jobs.
#   docker build -f deploy/images/ray.Dockerfile --build-arg BASE=registry.example/iterpo-inference:0.1.0 -t iterpo-ray .
ARG BASE=iterpo-inference:0.1.0
FROM ${BASE}
USER root
RUN /opt/iterpo/bin/pip install --no-cache-dir --disable-pip-version-check "ray[default]==2.60.0"
USER 10001
# KubeRay says what runs.
ENTRYPOINT []

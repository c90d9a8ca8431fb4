# The image of build-exporter; docs/deployment.md says how to build and run it.
ARG PYTHON=docker.io/library/python:3.13.16-slim-trixie

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Of the files that are compiled, the same source gives the same bytes.
ENV PYTHONHASHSEED=0
WORKDIR /src
COPY deploy/image/ ./
RUN python -m venv /opt/tools \
    && python -m venv --without-pip /opt/build-exporter \
    && /opt/tools/bin/pip install --require-hashes -r build-requirements.txt \
    && /opt/tools/bin/pip --python /opt/build-exporter/bin/python install --no-compile --no-deps \
        --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY exporter/ exporter/
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
    && /opt/tools/bin/pip --python /opt/build-exporter/bin/python install --no-compile --no-deps \
        /opt/wheel/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/build-exporter/lib

FROM ${PYTHON}
LABEL org.opencontainers.image.title="build-exporter" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN echo "build-exporter:x:10001:10001::/var/lib/build-exporter:/usr/sbin/nologin" >> /etc/passwd \
    && echo "build-exporter:x:10001:" >> /etc/group \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/build-exporter
COPY --from=build /opt/build-exporter /opt/build-exporter
ENV PATH=/opt/build-exporter/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /var/lib/build-exporter
VOLUME /var/lib/build-exporter
USER 10001:10001
EXPOSE 9848
# Any answer will do, for one that wants a user is alive too.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client; \
page = http.client.HTTPConnection('127.0.0.1', 9848, timeout=4); \
page.request('GET', '/healthz'); \
raise SystemExit(page.getresponse().status >= 500)"]
ENTRYPOINT ["build-exporter"]
CMD ["run", "--config", "/etc/build-exporter/config.yaml", "--web.listen-address", ":9848"]

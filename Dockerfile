# bilt-mcp over HTTP, as a user that is not root, on port 8765, for plain HTTP behind something that terminates TLS.
#
#     docker build -t bilt-mcp .
#     docker build -t bilt-mcp --build-arg PACKAGES="git make nodejs npm" .
#
# Steps run in this container, so it must have what your projects build with: PACKAGES are Debian's. README.md and
# compose.yaml say how it is run.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY bench/ bench/
COPY engine/ engine/
COPY server/ server/
COPY state/ state/
COPY tools/ tools/
# What is served needs no pip and no setuptools, so the environment that is copied below has neither.
RUN python -m pip install --no-cache-dir --disable-pip-version-check -c constraints.txt setuptools \
 && python -m pip wheel --no-cache-dir --no-build-isolation --no-deps -w /wheels . \
 && python -m venv --without-pip /opt/bilt-mcp \
 && python -m pip --python /opt/bilt-mcp install --no-cache-dir -c constraints.txt /wheels/*.whl

FROM python:${PYTHON}-slim
ARG PACKAGES=""
# tini is process 1: builds leave processes behind, and somebody has to bury them. Its version is the base image's
# affair, as are those of PACKAGES.
# hadolint ignore=DL3008
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tini ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /data/home bilt \
 && install -d -o bilt -g bilt -m 0700 /data /data/home \
 && install -d -o bilt -g bilt /project /projects
COPY --from=build /opt/bilt-mcp /opt/bilt-mcp
ENV PATH=/opt/bilt-mcp/bin:$PATH \
    HOME=/data/home \
    BILT_STORE=/data/store \
    BILT_PROJECT=/project \
    BILT_PROJECTS=/projects
WORKDIR /project
# By number, so that a cluster can see that it is not root.
USER 10001:10001
# /data: the store and the home folder, where builds have their caches. /projects: what callers create.
VOLUME ["/data", "/projects"]
EXPOSE 8765
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/health', timeout=4)"]
# serve wants to be told how it is reached, because keys must not travel in the clear:
#     docker run ... bilt-mcp serve --host 0.0.0.0 --public-url https://bilt.example.com
ENTRYPOINT ["tini", "--", "bilt-mcp"]
CMD ["serve", "--host", "0.0.0.0"]

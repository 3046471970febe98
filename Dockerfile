# The service as an image. docs/container.md says how to build and run it; compose.yaml runs it with
# Redis. The builder and the image share one base, and so one Python.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS base
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/log/*

FROM base AS builder
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update -q && apt-get install -qy --no-install-recommends binutils python3-venv
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/poller
WORKDIR /src
COPY config/pins/build.txt config/pins/run.txt config/pins/
# futu-api is published as source only: it is built here, with the pinned build tools
RUN /build/bin/pip install -q --no-cache-dir --require-hashes -r config/pins/build.txt \
    && /build/bin/pip wheel -q --no-cache-dir --no-build-isolation --require-hashes \
        -r config/pins/run.txt -w /wheels
# "chat": apprise as well, for the chats that are not understood without it
ARG EXTRAS=""
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY poller poller
RUN /build/bin/pip wheel -q --no-deps --no-build-isolation -w /wheels . \
    && /build/bin/pip --python /opt/poller/bin/python install -q --no-cache-dir --no-compile \
        --no-index --find-links /wheels "short-interest-poller[${EXTRAS}]"
# What no process reads is left out: tests, types and headers of packages, the SDK's Windows programs,
# CEL's extensions (filters have none of their functions) and the sources that its wheel holds by
# mistake. So are symbols of extension modules, which are never linked again; the libraries in *.libs
# stay as they are, because stripping breaks the alignment of their segments.
RUN cd /opt/poller/lib/python3*/site-packages \
    && rm -rf bazel-project cel_expr_python/ext pandas/tests Crypto/SelfTest \
    && find . -path './numpy/*' -name tests -prune -exec rm -rf {} + \
    && find . -type f \( -name '*.exe' -o -name '*.pyi' -o -name '*.pxd' -o -name '*.h' -o -name '*.a' \) -delete \
    && find . -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} +
# The root is read-only: what the service imports is compiled here, or each start would compile it.
RUN HOME=/tmp /opt/poller/bin/python -B config/container/imported.py >/tmp/imported \
    && /opt/poller/bin/python -m compileall -q --invalidation-mode unchecked-hash -i /tmp/imported

FROM base
RUN groupadd --gid 10001 poller \
    && useradd --uid 10001 --gid poller --no-create-home --home-dir /var/lib/poller \
        --shell /usr/sbin/nologin poller \
    && install -d -o poller -g poller -m 700 /var/lib/poller \
    && install -d /etc/poller
COPY --from=builder /opt/poller /opt/poller
ENV PATH=/opt/poller/bin:$PATH \
    HOME=/var/lib/poller \
    POLLER_STATE_DIR=/var/lib/poller \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /etc/poller
VOLUME /var/lib/poller
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["poller", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["poller"]
CMD ["run"]

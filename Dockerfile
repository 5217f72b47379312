# A static leaderrun and nothing else, to be copied from or mounted as an image volume:
#
#   COPY --from=leaderrun /leaderrun /usr/local/bin/
#
# docker build .                     builds it from source
# docker build --target prebuilt .   takes prebuilt/linux/ARCHITECTURE/leaderrun, for several platforms at once

FROM scratch AS base
LABEL org.opencontainers.image.title="leaderrun" \
      org.opencontainers.image.description="Runs a command only while it is the leader" \
      org.opencontainers.image.source="https://github.com/leaderrun/leaderrun" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
USER 65532:65532
ENTRYPOINT ["/leaderrun"]

FROM base AS prebuilt
ARG TARGETARCH
COPY prebuilt/linux/${TARGETARCH}/leaderrun /leaderrun

FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /build
COPY . .
# The caches keep the dependencies for the next build. The sources are touched, because copied files keep their times
# and could be older than a build of previous sources.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    find src crates -type f -exec touch {} + \
    && cargo build --release --locked --package leaderrun \
    && cp target/release/leaderrun /leaderrun

FROM base
COPY --from=build /leaderrun /leaderrun

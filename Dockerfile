# A static leaderrun and nothing else. Made to be copied from:
#
#   COPY --from=leaderrun /leaderrun /usr/local/bin/

FROM rust:1-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /build
COPY . .
# Dependencies, downloaded and built, are kept for the next build. Copied sources keep their times and could look
# older than what was built from others.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    find src crates -type f -exec touch {} + \
    && cargo build --release --locked --package leaderrun \
    && cp target/release/leaderrun /leaderrun

FROM scratch
COPY --from=build /leaderrun /leaderrun
USER 65532:65532
ENTRYPOINT ["/leaderrun"]

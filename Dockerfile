# The program is one static file. The image holds this file and the certificate authorities that TLS needs, nothing else.
#
#   docker build --build-arg VERSION=v1.2.3 -t rowhook .                     from source
#   docker buildx build --platform linux/amd64,linux/arm64 -t rowhook .      for several platforms, without emulation
#
# It needs BuildKit, as Docker 23 and later use it. GoReleaser builds the stage "release", with programs that it has built.

# What every image has.
FROM scratch AS base
ARG VERSION="" REVISION="" CREATED=""
LABEL org.opencontainers.image.title="Rowhook" \
      org.opencontainers.image.description="Delivers Postgres row changes to webhooks" \
      org.opencontainers.image.url="https://github.com/rowhook/rowhook" \
      org.opencontainers.image.source="https://github.com/rowhook/rowhook" \
      org.opencontainers.image.documentation="https://github.com/rowhook/rowhook/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
USER 65532:65532
# This check is for rowhook run: it asks /readyz. For other commands, set another check, as docker-compose.yml does for
# the receiver.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/rowhook", "healthcheck"]
ENTRYPOINT ["/rowhook"]
CMD ["run"]

FROM base AS release
ARG TARGETPLATFORM
COPY .cache/release/ca-certificates.crt /etc/ssl/certs/
COPY ${TARGETPLATFORM}/rowhook /rowhook

# The compiler runs on the builder's own platform, and compiles for the image's.
FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION="" TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false \
      -ldflags "-s -w -funcalign=16 -X github.com/rowhook/rowhook/internal/cli.version=${VERSION}" -o /out/rowhook .

FROM base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/rowhook /rowhook

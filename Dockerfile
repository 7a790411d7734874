# The program is one static file. The image holds this file and the certificate authorities that TLS needs, nothing else.
FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=""
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X github.com/rowhook/rowhook/internal/cli.version=${VERSION}" -o /out/rowhook .

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/rowhook /rowhook
USER 65532:65532
# This check is for rowhook run: it asks /readyz. For other commands, set another check, as docker-compose.yml does for
# the receiver.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/rowhook", "healthcheck"]
ENTRYPOINT ["/rowhook"]
CMD ["run"]

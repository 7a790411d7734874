# The program is one static file; the image holds it, the certificate authorities that TLS needs, and nothing else.
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
# Of rowhook run: it asks /readyz. Other commands are told otherwise, as docker-compose.yml tells the receiver.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["/rowhook", "healthcheck"]
ENTRYPOINT ["/rowhook"]
CMD ["run"]

# syntax=docker/dockerfile:1

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags='-s -w' -o /out/muster ./cmd/muster
# A volume that is new takes its owner from this folder.
RUN mkdir -m 0700 /out/data

# No shell, no package manager, no PostgreSQL: the image needs DATABASE_URL.
# It has root certificates, for mail servers and webhooks.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/muster /usr/local/bin/muster
COPY --from=build --chown=nonroot:nonroot /out/data /var/lib/muster
ENV MUSTER_DATA_DIR=/var/lib/muster MUSTER_LISTEN=:8080
VOLUME /var/lib/muster
EXPOSE 8080
USER nonroot
ENTRYPOINT ["/usr/local/bin/muster"]
CMD ["serve"]

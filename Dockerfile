# forestall in an image with nothing else in it: no shell, no package manager, no root.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# The rules that are embedded: presets, and those of the demo.
COPY rules ./rules
# The empty folder becomes the owner of --storage.path, which a volume takes over.
RUN cargo build --locked --release --bin forestall && mkdir /storage

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="forestall" \
      org.opencontainers.image.description="A sidecar for Prometheus that foresees failures and prevents them" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/release/forestall /usr/bin/forestall
COPY --from=build --chown=65532:65532 /storage /var/lib/forestall
USER 65532:65532
VOLUME /var/lib/forestall
EXPOSE 9797
ENTRYPOINT ["/usr/bin/forestall"]
CMD ["serve", "--config.file=/etc/forestall/forestall.yml", "--storage.path=/var/lib/forestall"]

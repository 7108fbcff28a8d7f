# The image of Ringwire: one static program and nothing else.
#
#   docker build -t ringwire .
#
# With a program that is built already (the folder holds `image`, which has what is to be in the image), the first stage is skipped:
#
#   docker build --build-context build=FOLDER -t ringwire .
#
# which is what hack/image.sh does with buildah, without pulling anything.

FROM rust:1.95-bookworm AS build
# aws-lc and Opus are built from source.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The C library is linked in too, so that the last stage needs none. It must not be for procedural macros, which are
# loaded by the compiler: naming the target keeps the flag away from them.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    target=$(rustc -vV | sed -n 's/^host: //p') \
    && case $target in x86_64-*) fold="-C link-arg=-Wl,--icf=safe" ;; *) fold= ;; esac \
    && RUSTFLAGS="-C target-feature=+crt-static $fold" \
        cargo build --locked --release --target "$target" --package ringwire \
    && mkdir /image && cp "target/$target/release/ringwire" /image/ && ln -s ringwire /image/ringwire-operator

FROM scratch AS runtime
LABEL org.opencontainers.image.title="Ringwire" \
      org.opencontainers.image.description="SIP trunks, phone numbers and voice agents as Kubernetes resources" \
      org.opencontainers.image.licenses="Apache-2.0"
# The folder as a whole: a link that is named here would become a copy of the program.
COPY --from=build /image/ /
# For `kubectl exec POD -- ringwire get`.
ENV PATH=/
USER 65532:65532
ENTRYPOINT ["/ringwire"]

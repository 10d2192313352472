# One image for every role: the control plane, proxies, the command line. It is asked for by the names of Istio's
# images, so tag it as HUB/pilot:TAG and HUB/proxyv2:TAG.
#
#   docker build -t registry.example.com/mesh/pilot:0.1.0 -t registry.example.com/mesh/proxyv2:0.1.0 .
#   lateen install --set hub=registry.example.com/mesh --set tag=0.1.0

FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p lateen && mkdir /out && strip -o /out/lateen target/release/lateen \
    && ln -s lateen /out/pilot-agent && ln -s lateen /out/istioctl

# The same C library as above, no shell, no package manager, no root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /usr/local/bin/
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/lateen"]

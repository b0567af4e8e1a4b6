# The image contains Node.js, the service as JavaScript and its dependencies; no shell, no npm, no sources. Nothing is compiled
# for a platform, so every build step runs on the builder's own. A release pins the base images to their digests.

FROM --platform=$BUILDPLATFORM node:24-trixie-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM dependencies AS build
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN npm run build

FROM gcr.io/distroless/nodejs24-debian13:nonroot
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kafscale-mcp" \
      org.opencontainers.image.description="Answers AI agents' questions about a KafScale cluster over MCP, from a live mirror of its metadata" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /app
COPY --from=dependencies /app/node_modules node_modules
COPY --from=build /app/package.json package.json
COPY --from=build /app/bin bin
COPY --from=build /app/dist dist

# Nothing outside the container reaches loopback. On any other address, the service starts only with authentication.
ENV PATH=/nodejs/bin:/usr/bin:/bin \
    KAFSCALE_MCP_HTTP_ADDR=:8090
USER 10001:10001
EXPOSE 8090 9090

# For engines without probes, and for plain HTTP on the port above: replace it where you change either.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --start-interval=1s \
  CMD ["node", "--eval", "fetch('http://127.0.0.1:8090/healthz').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]

ENTRYPOINT ["node", "bin/kafscale-mcp.js"]

# The image: one stage bundles the program, the other holds Node, the bundle and nothing else. ./build-image.sh builds
# it so that the same commit gives the same digest.

FROM node:26-trixie-slim@sha256:930557a230abacbc3f4fd9b8648abf8f4bee1e17cb72195dcdfb2f709bc85b33 AS build
WORKDIR /build
COPY package.json package-lock.json ./
# No install scripts: the only one that matters brings a Node, and this image is one.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY build.ts build-sbom.ts ./
COPY src ./src
COPY proxy ./proxy
COPY acme ./acme
COPY dns ./dns
COPY evidence ./evidence
ARG GIT_REVISION
RUN GIT_REVISION="$GIT_REVISION" node build.ts dist
# What it is made of, beside it.
RUN node build-sbom.ts dist

FROM gcr.io/distroless/nodejs26-debian13:nonroot@sha256:2ee7b2c54a3e37dfc248af81c9f6bcdcaa50abe4af44aa47a3388431031b9283
ARG GIT_REVISION
LABEL org.opencontainers.image.title="dstack-ingress" \
      org.opencontainers.image.description="TLS ingress for dstack confidential VMs" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="$GIT_REVISION"
# Modes are set, not inherited: they differ with the umask of whoever cloned the repository. 0555, because the folder
# takes the mode too and must stay one that can be entered.
COPY --from=build --chmod=0555 /build/dist/ /app/
COPY --chmod=0444 LICENSE /app/
# Root inside the container, as in the images that this one replaces: their volumes (/etc/letsencrypt with keys of mode
# 0600, /evidences) and the guest agent's socket belong to root, and a compose file need not change. There is no shell
# and nothing set-uid here. What meets visitors becomes another user, see SECURITY.md: with `cap_drop: [ALL]` that takes
# `cap_add: [NET_BIND_SERVICE, SETUID, SETGID, KILL]`; without the last three it works too, unfenced, and says so.
USER 0:0
ENV NODE_ENV=production
EXPOSE 443
STOPSIGNAL SIGTERM
# Certificates, workers, not stopping, asked over a socket of its own. The first certificate may take minutes, and until
# then no failure counts.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s \
  CMD ["/nodejs/bin/node", "/app/dstack-ingress.mjs", "healthcheck"]
ENTRYPOINT ["/nodejs/bin/node", "/app/dstack-ingress.mjs"]
CMD ["serve"]

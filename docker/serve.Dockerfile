# Serving: an endpoint, a multi-model endpoint or a batch transform job of SageMaker, and EC2.
# Build from the root of the repository: docker build --file docker/serve.Dockerfile --tag trademl-serve .
# A ladder with a network needs torch: --build-arg EXTRAS=serve,aws,train
FROM python:3.11.7-slim-bookworm AS build
ARG EXTRAS=serve,aws
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

FROM python:3.11.7-slim-bookworm
LABEL com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
      com.amazonaws.sagemaker.capabilities.multi-models=true
COPY --from=build /venv /venv
COPY docker/entrypoint.sh /usr/local/bin/entrypoint
RUN useradd --uid 10001 --create-home trademl
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=2s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('SAGEMAKER_BIND_TO_PORT', '8080') + '/ping', timeout=2)"]
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["serve"]

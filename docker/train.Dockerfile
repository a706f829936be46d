# Training: a training or tuning job of SageMaker. It runs as root, who alone may write /opt/ml there.
# Build from the root of the repository: docker build --file docker/train.Dockerfile --tag trademl-train .
FROM python:3.11.7-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[train]"

FROM python:3.11.7-slim-bookworm
COPY --from=build /venv /venv
COPY docker/entrypoint.sh /usr/local/bin/entrypoint
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
HEALTHCHECK NONE
ENTRYPOINT ["/usr/local/bin/entrypoint"]
CMD ["train"]

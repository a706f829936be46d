# Development: Jupyter with every extra, on a GPU where there is one (docker run --gpus all).
# Build from the root of the repository: docker build --file docker/dev.Dockerfile --tag trademl-dev .
# docker run --rm --publish 127.0.0.1:8888:8888 --volume "$PWD":/work trademl-dev
FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu22.04
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3.11 python3.11-venv git make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN python3.11 -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --constraint constraints.txt \
      ".[train,serve,backtest,monitor,aws,dev]" "jupyterlab==4.4.9"
RUN useradd --uid 10001 --create-home trademl
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
EXPOSE 8888
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8888/api', timeout=3)"]
ENTRYPOINT ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser"]

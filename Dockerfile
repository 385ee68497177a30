# Clozeworks on a CPU. Build: docker build -t clozeworks .   Run: docker run -v "$PWD:/data" clozeworks --help
FROM python:3.11-slim
RUN useradd --create-home clozeworks && mkdir /data && chown clozeworks /data
WORKDIR /opt/clozeworks
# give the index of torch's CPU builds (pytorch.org names it) to spare gigabytes of CUDA libraries:
# docker build --build-arg TORCH_INDEX=… -t clozeworks .
ARG TORCH_INDEX=
RUN pip install --no-cache-dir torch==2.13.0 ${TORCH_INDEX:+--index-url $TORCH_INDEX}
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt '.[excel,zh]'
USER clozeworks
WORKDIR /data
ENTRYPOINT ["clozeworks"]

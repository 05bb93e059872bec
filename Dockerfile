# One image for every executor and the gateway, for CPU or for NVIDIA GPUs:
#   docker build --target cpu  -t attune:0.1.0-cpu  .
#   docker build --target cuda -t attune:0.1.0-cuda .
# The whole fine-tuning service in one container, HTTP on http://localhost:52000/docs:
#   docker run -v attune:/data attune:0.1.0-cpu python -m flows.tokens add me
#   docker run -p 51000:51000 -p 52000:52000 -v attune:/data attune:0.1.0-cpu
# The search service: append `python -m flows.serve flows/search.yml` and publish 51001 and 52001.
# In Kubernetes each pod runs one `jina executor` or `jina gateway` of this image: see k8s/README.md.

FROM python:3.11-slim AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements.txt ./
# The pins alone: pip takes no `-e .` and no extras in a constraints file.
RUN sed -n 's/\[[^]]*\]//; /^[A-Za-z].*==/p' requirements.txt > constraints.txt

# torch comes first and in a layer of its own, because it is the largest and the code changes more often. The wheels of PyPI
# bring CUDA with them; an index with CPU-only ones, if you have one, makes the CPU image some 4 GB smaller.
ARG TORCH_INDEX_URL=""
RUN pip install -c constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch torchvision
COPY pyproject.toml README.md ./
COPY attune attune
COPY executors executors
COPY flows flows
COPY client client
RUN pip install -c constraints.txt '.[server]'

FROM python:3.11-slim AS runtime
# The user's number is also in k8s/additions.py.
RUN useradd --uid 1000 --create-home attune && install -d -o attune -g attune /data
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    ATTUNE_HOME=/data ATTUNE_HOST=0.0.0.0 ATTUNE_TOKENS=/data/tokens.json HF_HOME=/data/huggingface JINA_OPTOUT_TELEMETRY=1
WORKDIR /app
COPY flows flows
USER attune
VOLUME /data
EXPOSE 51000 52000
# A training ends its step and writes a checkpoint first: docker stop -t 120.
CMD ["python", "-m", "flows.serve", "flows/finetune.yml"]

FROM runtime AS cpu
COPY --from=packages /opt/venv /opt/venv

# The host needs NVIDIA's driver and container toolkit.
FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages /opt/venv /opt/venv

# The environment of the book with its sources, from the same pins as everywhere else.
#
#   docker build -t executable-theory .
#   docker run --rm -p 127.0.0.1:8888:8888 executable-theory         the chapters in Jupyter
#   docker run --rm -it executable-theory make test                  or any other command
#
# A build with CUDA: --build-arg TORCH_INDEX= (PyPI's own), and docker run --gpus all.
FROM python:3.11-slim-bookworm

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium git make \
    && rm -rf /var/lib/apt/lists/*

# Binder says who the user is; elsewhere it is this one.
ARG NB_USER=reader
ARG NB_UID=1000
RUN useradd --create-home --uid "${NB_UID}" "${NB_USER}" \
    && install --directory --owner="${NB_USER}" "/home/${NB_USER}/book"
USER ${NB_USER}
WORKDIR /home/${NB_USER}/book

# First what the environment is made from, so that a change of a chapter does not set it up again.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_EXTRA_INDEX_URL=${TORCH_INDEX} PIP_NO_CACHE_DIR=1 PYTHON=/usr/local/bin/python3
COPY --chown=${NB_UID} Makefile pyproject.toml README.md LICENSE LICENSE-text ./
COPY --chown=${NB_UID} requirements.txt requirements-test.txt constraints.txt ./
COPY --chown=${NB_UID} lib/__init__.py lib/
COPY --chown=${NB_UID} tools/environment.py tools/
RUN make environment-test

# Binder starts Jupyter by a command of this package, which nothing else here needs.
# hadolint ignore=DL3059
RUN .venv/bin/python -m pip install --quiet -c constraints.txt notebook==7.6.5

COPY --chown=${NB_UID} . .
ENV PATH=/home/${NB_USER}/book/.venv/bin:${PATH}
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--notebook-dir=chapters"]

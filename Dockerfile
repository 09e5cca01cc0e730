# The images of docker-compose.yaml: `service`, the training service, and `airflow`, Airflow with this package.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-trixie AS build
COPY constraints.txt /tmp/
RUN pip install --no-cache-dir --root-user-action ignore --constraint /tmp/constraints.txt uv
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY airflow_training airflow_training
RUN uv build --quiet --wheel --out-dir /wheels
# The service does not import Airflow, which would be half of its image.
RUN printf '%s; python_version < "3"\n' apache-airflow apache-airflow-providers-http > /tmp/without.txt \
    && uv venv --quiet /opt/airflow-training \
    && uv pip install --quiet --no-cache --python /opt/airflow-training/bin/python --compile-bytecode \
        --constraint /tmp/constraints.txt --override /tmp/without.txt "$(echo /wheels/*.whl)[service,postgresql,tensorboard]"

FROM python:${PYTHON}-slim-trixie AS service
RUN useradd --uid 10001 --create-home --home-dir /var/lib/airflow-training training \
    && install --directory --owner training --mode 0700 /var/lib/airflow-training/data
COPY --from=build /opt/airflow-training /opt/airflow-training
ENV PATH=/opt/airflow-training/bin:$PATH TRAINING_DATA=/var/lib/airflow-training/data
USER 10001
EXPOSE 8900 8901
ENTRYPOINT ["airflow-training"]
CMD ["serve", "--host", "0.0.0.0", "--storage-port", "8901", "--access-log", "-"]

FROM apache/airflow:3.3.2-python${PYTHON} AS airflow
# Docker gives a new volume the owner of its mount point.
RUN install --directory --mode 0775 /opt/airflow/models
# Packages of the Airflow image stay unchanged; missing ones are the newest that fit.
# The wheel is copied, not mounted: Podman reuses a cached layer whatever a mount contains.
COPY --from=build /wheels /tmp/wheels
RUN pip list --format freeze > /tmp/installed.txt \
    && pip install --no-cache-dir --constraint /tmp/installed.txt /tmp/wheels/*.whl \
    && rm /tmp/installed.txt

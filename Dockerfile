# One image for every process of Insighto; docker-compose.yml says which command each runs.
FROM python:3.11-slim

# libssl3, libuuid1, libstdc++6 and the certificates are what Azure's native speech client loads at run time.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 libuuid1 libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin insighto

WORKDIR /app
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

COPY requirements/base.txt requirements/base.txt
RUN pip install --require-hashes -r requirements/base.txt

COPY manage.py pyproject.toml ./
COPY insighto insighto
COPY accounts accounts
COPY provider_keys provider_keys
COPY billing billing
COPY gateway gateway
COPY templates templates
COPY static static

# Values for this one step only: they are random, live nowhere, and satisfy the production checks.
RUN random() { python -c 'import secrets; print(secrets.token_hex(32))'; }; \
    INSIGHTO_ENV=production SECRET_KEY="$(random)" API_KEY_PEPPER="$(random)" CREDENTIAL_KEYS_FILE=/dev/null \
    DATABASE_URL=postgres://build/build REDIS_URL=redis://build PUBLIC_URL=https://build.invalid \
    ALLOWED_HOSTS=build.invalid EMAIL_URL=smtp://build \
    python manage.py collectstatic --noinput

ENV INSIGHTO_ENV=production VAR_DIR=/tmp/insighto
USER insighto
EXPOSE 8000
CMD ["python", "-m", "insighto.server", "--host", "0.0.0.0", "--port", "8000", "--workers", "2"]
